"""What all loaders give: the `Dataset`, which reads its images and masks when they are asked for."""
import hashlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .pixels import DataError, load_image, load_mask, mask_files, mask_remark, picture, read_mask, white_of

# bytes of images from which on they are kept in a file, mapped into memory, which the system can page out
ROOM = 2 ** 31


@dataclass(frozen=True)
class Sample:
    """One image: ``label`` 0 normal, 1 anomalous; ``defect`` "good" or the name of the defect's class.

    ``mask`` may be a folder, where an image has several.
    """
    image: Path
    label: int
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used, and why; ``lost`` where it may be somebody's photograph."""
    path: Path
    reason: str
    lost: bool

    def __str__(self):
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Dataset:
    """One category. A mask value above ``mask_threshold`` is anomalous; ``notes`` say what is unusual.

    ``left_out`` has the files below ``root`` that are not used, where the loader looks at all of them ("folder").
    """
    name: str
    category: str
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]
    mask_threshold: int = 0
    left_out: tuple[LeftOut, ...] = ()

    def __str__(self):
        found = ", ".join(f"{count} {what}" for what, count in counts(self.train, self.test).items())
        return f"{self.name}/{self.category}: {found} images"

    def images(self, split, size, white=None) -> Tensor:
        """Images of "train" or "test", (N, 3, size, size) float32 in [-1, 1].

        RGB, resized straight to a square (bilinear, antialiased). ``white``: the value of 16-bit grey that becomes 1;
        None: `self.white`. Many images lie in a file that is mapped into memory, so that the system can page them out.
        Raises `DataError` naming every image that cannot be read.
        """
        samples, white = self._samples(split), self.white if white is None else white
        return _fill(roomy(len(samples), 3, size, size), samples,
                     lambda sample: load_image(sample.image, size, white, strict=True))

    @cached_property
    def white(self) -> int | None:
        """The value of 16-bit grey that is white, from all images: 4095 where they hold 12 bits; None without such
        images."""
        return white_of(sample.image for sample in self.train + self.test)

    def good(self) -> "Dataset":
        """This dataset with the good ones among its test images only."""
        return replace(self, test=tuple(sample for sample in self.test if sample.label == 0))

    def masks(self, split, size, keep_small=True) -> Tensor:
        """Ground truth of "train" or "test", (N, size, size) bool, all False where the image is normal.

        keep_small: regions too small for ``size`` keep at least one pixel; False: they vanish, as in the authors' code.
        Raises `DataError` naming every anomalous image without a mask, or with one that cannot be read.
        """
        def mask_of(sample):
            if sample.label == 0:
                return torch.zeros(size, size, dtype=torch.bool)
            if sample.mask is None:
                raise DataError(f"{sample.image}: anomalous but without a mask; add one, or use scores only")
            return load_mask(sample.mask, size, self.mask_threshold, keep_small)

        out = torch.empty(len(self._samples(split)), size, size, dtype=torch.bool)
        return _fill(out, self._samples(split), mask_of)

    def labels(self, split) -> Tensor:
        """Labels of "train" or "test", (N,) int64: 0 normal, 1 anomalous."""
        return torch.tensor([sample.label for sample in self._samples(split)], dtype=torch.int64)

    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over split, label, relative path and content of every file."""
        digest = hashlib.sha256()
        for split in ("train", "test"):
            for sample in self._samples(split):
                for path in filter(None, (sample.image, sample.mask)):
                    for file in mask_files(path) if path.is_dir() else [path]:
                        name = file.relative_to(self.root).as_posix()
                        content = hashlib.sha256(file.read_bytes()).hexdigest()
                        line = f"{split}\0{sample.label}\0{name}\0{content}\n"
                        digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    def check(self) -> list[str]:
        """Decode every image and mask in full; return the problems found, [] where there are none.

        Beyond unreadable files: masks of another size than their image, empty masks of anomalous
        images unless a note already names them, masks without a normal pixel, and photographs that are left out.
        """
        problems = [f"{left}; convert, repair or remove it" for left in self.left_out if left.lost]
        for sample in self.train + self.test:
            image = _attempt(problems, picture, sample.image)
            mask = None if sample.mask is None else _attempt(problems, read_mask, sample.mask, self.mask_threshold)
            if mask is None:
                continue
            same_size = image is not None and image.size == mask.shape[::-1]
            if image and not same_size:
                problems.append(f"{sample.mask}: {mask.shape[::-1]} pixels, image {image.size}; replace it")
            known = any(f"mask of {sample.mask.stem} is empty" in note for note in self.notes)
            if not known and not mask.any():
                problems.append(f"{sample.mask}: empty mask of an anomalous image; draw it or drop the image")
            if mask.all() and same_size:
                problems.append(f"{sample.mask}: every pixel is anomalous; black must be what is normal")
        return problems

    def remarks(self) -> list[str]:
        """What is no problem but worth a look: the depth of 16-bit images, and how masks had to be understood."""
        found = []
        if self.white not in (None, 65535):
            found.append(f"16-bit images hold {self.white.bit_length()} bits: {self.white} is read as white")
        for sample in self.train + self.test:
            found.append(_attempt([], mask_remark, sample.mask) if sample.mask else "")
        return [remark for remark in found if remark]

    def duplicates(self) -> list[str]:
        """A line for each test image whose file is, byte for byte, that of a training image."""
        trained = {hashlib.sha256(sample.image.read_bytes()).digest(): sample.image for sample in self.train
                   if sample.image.is_file()}
        same = ((sample.image, trained.get(hashlib.sha256(sample.image.read_bytes()).digest())) for sample in self.test
                if sample.image.is_file())
        return [f"{image}: the same image as {other}, which is trained on; remove one of the two"
                for image, other in same if other]

    def _samples(self, split):
        if split not in ("train", "test"):
            raise ValueError(f"unknown split {split!r}; allowed: train, test")
        return self.train if split == "train" else self.test


def counts(train, test):
    """How many images of each kind, by what messages call it."""
    anomalous = sum(sample.label for sample in test)
    return {"training": len(train), "normal test": len(test) - anomalous, "anomalous test": anomalous}


def _attempt(problems, function, *arguments):
    """The function's value; where it raises a DataError, None and one more problem."""
    try:
        return function(*arguments)
    except DataError as error:
        problems.append(str(error))


def _fill(out, samples, load):
    """Write ``load(sample)`` into the rows of ``out``, by a few threads; one DataError for all samples that fail, in
    their order."""
    def fill(row, sample):
        problems = []
        value = _attempt(problems, load, sample)
        if value is not None:
            row.copy_(value)
        return problems

    if len(samples) < 8:
        problems = [problem for row, sample in zip(out, samples) for problem in fill(row, sample)]
    else:
        with ThreadPoolExecutor(min(4, torch.get_num_threads())) as pool:  # decoders let go of the interpreter
            problems = [problem for found in pool.map(fill, out, samples) for problem in found]
    if problems:
        raise DataError("\n".join(problems))
    return out


def roomy(*shape, dtype=torch.float32) -> Tensor:
    """An empty Tensor; a large one of float32 lies in a temporary file that goes when the Tensor does."""
    numel = 1
    for side in shape:
        numel *= side
    if dtype != torch.float32 or numel * 4 < ROOM or shutil.disk_usage(tempfile.gettempdir()).free < 5 * numel:
        return torch.empty(shape, dtype=dtype)
    with tempfile.NamedTemporaryFile(prefix="d3ad-images-") as file:  # mapped, so it can lose its name
        return torch.from_file(file.name, shared=True, size=numel).view(shape)
