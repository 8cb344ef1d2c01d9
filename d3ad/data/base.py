"""What all loaders share: the `Dataset` itself, reading pixels, listing files and pairing masks."""
import hashlib
import os
import random
import re
import shutil
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .pixels import SUFFIXES, DataError, load_image, load_mask, mask_files, mask_remark, picture, read_mask, white_of

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
        found = ", ".join(f"{count} {what}" for what, count in _counts(self.train, self.test).items())
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


# Files. What is wrong is added to ``problems``, so that all of it can be reported at once.

def natural(path):
    """Sort key: "2.png" before "10.png"; the plain name decides between "1.png" and "01.png"."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def _visible(folder):
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if not path.name.startswith(".")), key=natural)


def subfolders(folder):
    """Visible subfolders, sorted; none where the folder does not exist."""
    return [path for path in _visible(folder) if path.is_dir()]


def image_files(folder, suffixes=SUFFIXES):
    """Visible image files directly in a folder, sorted; none where the folder does not exist."""
    return [path for path in _visible(folder) if path.suffix.lower() in suffixes and not path.is_dir()]


def list_images(folder, problems, suffixes=SUFFIXES):
    """As `image_files`, where an absent or empty folder and unusable files are problems."""
    if not folder.is_dir():
        problems.append(f"{folder}: folder not found; restore it from the dataset")
        return []
    images = image_files(folder, suffixes)
    for path in images:
        if not fits_a_line(path.name):
            problems.append(f"{folder}: {path.name!r} has characters that no list can hold; rename it")
    images = [path for path in images if fits_a_line(path.name)]
    if not images:
        problems.append(f"{folder}: no images in it; restore them from the dataset")
    first = {}
    for path in images:
        check_file(path, problems)
        other = first.setdefault(path.stem, path)
        if other is not path:
            problems.append(f"{path}: same name as {other.name}; keep one of the two")
    return images


def fits_a_line(name):
    """Whether a name can stand in a line of UTF-8 text: no line break, control character or undecodable byte."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def check_file(path, problems):
    """A file must be there (a link may lead nowhere) and hold something; it is not opened."""
    if not path.is_file():
        problems.append(f"{path}: file not found; restore it from the dataset")
    elif path.stat().st_size == 0:
        problems.append(f"{path}: empty file (0 bytes); copy or download it again")


def normal_samples(images):
    """Samples of normal images."""
    return [Sample(path, 0, None, "good") for path in images]


def anomalous_samples(images, mask_folder, defect, problems, suffixes=SUFFIXES):
    """Samples of anomalous images, each paired with the mask ``<stem>.*`` or ``<stem>_mask.*``."""
    # MVTec LOCO: a folder of masks for each image
    if subfolders(mask_folder) and not image_files(mask_folder, suffixes):
        masks = {path.name: path for path in subfolders(mask_folder)}
    else:
        masks = {path.stem: path for path in list_images(mask_folder, problems, suffixes)}
    if not images or not masks:  # one problem says so already, rather than one for every file
        return []
    samples = []
    for path in images:
        mask = masks.pop(path.stem, None) or masks.pop(f"{path.stem}_mask", None)
        if mask is None:
            problems.append(f"{path}: no mask {path.stem}.* in {mask_folder}; add it or remove the image")
        samples.append(Sample(path, 1, mask, defect))
    problems += [f"{mask}: mask without an image; add the one or remove the other" for mask in masks.values()]
    return samples


def find_root(root, names, holds, name, expected):
    """The first folder where ``holds(folder)``: ``root``, those in it called as in ``names``, those in these.

    ``names`` are patterns in lower case. The last level is for archives unpacked into a folder of their name.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the one that holds {name} ({expected})")
    def rank(path):
        return next((i for i, usual in enumerate(names) if fnmatch(path.name.lower(), usual)), None)

    below = sorted((path for path in subfolders(root) if rank(path) is not None), key=rank)  # the most usual name first
    for folder in (root, *below, *(path for parent in below for path in subfolders(parent))):
        if holds(folder):
            return folder
    places = " or ".join(("it", *names))
    raise DataError(f"{root}: {name} not found: no {expected} in {places}; give the folder that holds it")


@dataclass(frozen=True)
class FolderLayout:
    """``<category>/{train/<normal>, test/<normal>, test/<defect>, ground_truth/<defect>}``.

    ``defects`` must be there, others are read where found; ``published`` has the counts of each category:
    train normal, test normal, test anomalous. MVTec LOCO's masks, a folder for each image, and MVTec AD 2's
    ``test_public``, which holds its ``ground_truth``, are read too; a note names what is not used.
    """
    name: str
    names: tuple[str, ...]
    published: dict
    normal: str = "good"
    defects: tuple[str, ...] = ()
    OPTIONS = ()

    def find(self, root):
        """The folder of the dataset under ``root``."""
        return find_root(root, self.names, self.categories, self.name, f"<category>/train/{self.normal}")

    def categories(self, root):
        """The categories in the dataset's folder."""
        return tuple(path.name for path in subfolders(root) if (path / "train" / self.normal).is_dir())

    def read(self, root, category, problems):
        """One category."""
        folder = root / category
        tested, truth = folder / "test", folder / "ground_truth"
        if (folder / "test_public").is_dir() and not tested.is_dir():
            tested, truth = folder / "test_public", folder / "test_public" / "ground_truth"
        train = normal_samples(list_images(folder / "train" / self.normal, problems))
        if not tested.is_dir() and not truth.is_dir():
            problems.append(f"{tested}: folder not found; restore it from the dataset, or, to fit without a test, give "
                            f"{folder / 'train' / self.normal} as a folder")
            return Dataset(self.name, category, root, tuple(train), (), ())
        test = normal_samples(list_images(tested / self.normal, problems))
        found = {path.name for place in (tested, truth) for path in subfolders(place)} - {"ground_truth"}
        defects = sorted((found | set(self.defects)) - {self.normal})
        if not defects:
            problems.append(f"{tested}: no folder of anomalous images; restore it from the dataset")
        for defect in defects:
            images = list_images(tested / defect, problems)
            test += anomalous_samples(images, truth / defect, defect, problems)
        notes = count_notes(self.name, category, train, test, self.published)
        unused = [path.name for path in subfolders(folder) if path.name not in ("train", tested.name, truth.name)]
        if unused:
            notes.append(f"{self.name}/{category}: not used: {', '.join(unused)}")
        return Dataset(self.name, category, root, tuple(train), tuple(test), tuple(notes))


# Splits and counts

def hold_out(samples, seed, fraction=0.2):
    """Split at random into (train, test), each in the order given: 952 samples into 762 and 190."""
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    held = set(order[:round(fraction * len(samples))])
    return ([sample for i, sample in enumerate(samples) if i not in held],
            [sample for i, sample in enumerate(samples) if i in held])


def _counts(train, test):
    anomalous = sum(sample.label for sample in test)
    return {"training": len(train), "normal test": len(test) - anomalous, "anomalous test": anomalous}


def count_notes(name, category, train, test, published):
    """Notes on how (train, normal test, anomalous test) differ from ``published[category]``."""
    if category not in published:
        return [f"{name}/{category}: not a published category, so its counts are not checked"]
    return differences(f"{name}/{category}", _counts(train, test), published[category])


def differences(label, found, published):
    """One note per count that differs: "visa/pcb1: 900 training images, 904 published"."""
    return [f"{label}: {count} {what} images, {expected} published"
            for (what, count), expected in zip(found.items(), published) if count != expected]
