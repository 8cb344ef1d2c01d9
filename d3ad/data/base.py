"""What all loaders share: the `Dataset` itself, reading pixels, listing files and pairing masks."""
import hashlib
import os
import random
import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


class DataError(ValueError):
    """Files that cannot be used: every problem on a line of its own, with the file and what to do."""


@dataclass(frozen=True)
class Sample:
    """One image: ``label`` 0 normal, 1 anomalous; ``defect`` "good" or the name of the defect's class."""
    image: Path
    label: int
    mask: Path | None
    defect: str


@dataclass(frozen=True)
class Dataset:
    """One category. A mask value above ``mask_threshold`` is anomalous; ``notes`` say what is unusual."""
    name: str
    category: str
    root: Path
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...]
    mask_threshold: int = 0

    def __str__(self):
        found = ", ".join(f"{count} {what}" for what, count in _counts(self.train, self.test).items())
        return f"{self.name}/{self.category}: {found} images"

    def images(self, split, size) -> Tensor:
        """Images of "train" or "test", (N, 3, size, size) float32 in [-1, 1].

        RGB, resized straight to a square (bilinear, antialiased). Raises `DataError` naming every
        image that cannot be read.
        """
        out = torch.empty(len(self._samples(split)), 3, size, size)
        return _fill(out, self._samples(split), lambda sample: load_image(sample.image, size))

    def masks(self, split, size) -> Tensor:
        """Ground truth of "train" or "test", (N, size, size) bool, all False where the image is normal.

        Raises `DataError` naming every anomalous image without a mask, or with one that cannot be read.
        """
        def mask_of(sample):
            if sample.label == 0:
                return torch.zeros(size, size, dtype=torch.bool)
            if sample.mask is None:
                raise DataError(f"{sample.image}: anomalous but without a mask; add one, or use scores only")
            return load_mask(sample.mask, size, self.mask_threshold)

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
                    name = path.relative_to(self.root).as_posix()
                    content = hashlib.sha256(path.read_bytes()).hexdigest()
                    digest.update(f"{split}\0{sample.label}\0{name}\0{content}\n".encode())
        return digest.hexdigest()[:16]

    def check(self) -> list[str]:
        """Decode every image and mask in full; return the problems found, [] where there are none.

        Beyond unreadable files: masks of another size than their image, and empty masks of anomalous
        images unless a note already names them.
        """
        problems = []
        for sample in self.train + self.test:
            image = _attempt(problems, _decode, sample.image, _to_rgb)
            mask = None if sample.mask is None else _attempt(problems, _decode, sample.mask, _to_values)
            if mask is None:
                continue
            if image and image.size != mask.shape[::-1]:
                problems.append(f"{sample.mask}: {mask.shape[::-1]} pixels, image {image.size}; replace it")
            known = any(f"mask of {sample.mask.stem} is empty" in note for note in self.notes)
            if not known and not (mask > self.mask_threshold).any():
                problems.append(f"{sample.mask}: empty mask of an anomalous image; draw it or drop the image")
        return problems

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
    """Write ``load(sample)`` into the rows of ``out``; one DataError for all samples that fail."""
    problems = []
    for row, sample in zip(out, samples):
        value = _attempt(problems, load, sample)
        if value is not None:
            row.copy_(value)
    if problems:
        raise DataError("\n".join(problems))
    return out


# Pixels

def load_image(path, size) -> Tensor:
    """Read any image file as RGB, (3, size, size) float32 in [-1, 1].

    Grey is repeated over the channels, 16-bit grey keeps its precision, transparency is laid over white,
    and a photograph is turned the way its EXIF tag says. Raises `DataError` naming an unreadable file.
    """
    image = _decode(path, _to_rgb)
    white = 65535 if image.mode == "F" else 255
    pixels = torch.from_numpy(np.array(image.resize((size, size), Image.Resampling.BILINEAR), np.float32))
    if pixels.ndim == 2:
        pixels = pixels[..., None].expand(-1, -1, 3)
    return (pixels.permute(2, 0, 1) / (white / 2) - 1).contiguous()


def load_mask(path, size, threshold=0) -> Tensor:
    """Read a mask, (size, size) bool: values above ``threshold`` are anomalous.

    Binarised first, then resized (bilinear) and cut at one half, so that label values are never mixed.
    Raises `DataError` naming an unreadable file.
    """
    anomalous = Image.fromarray((_decode(path, _to_values) > threshold).astype(np.float32))
    return torch.from_numpy(np.array(anomalous.resize((size, size), Image.Resampling.BILINEAR)) > 0.5)


def _decode(path, convert):
    """Open, decode in full, turn upright and convert; any failure becomes a DataError naming the file."""
    try:
        with Image.open(path) as image:
            return convert(ImageOps.exif_transpose(image))
    except Exception as error:  # damaged files make decoders raise nearly anything
        raise DataError(f"{path}: cannot be read as an image ({error}); replace or remove it") from error


def _to_rgb(image):
    """Mode "RGB", or for grey of 16 bits mode "F" with values up to 65535 (Pillow would clip it to 255)."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float32)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("values outside 0..65535: convert it to 8 or 16 bits")
        return Image.fromarray(values)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known white: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_values(image):
    """A mask's values (H, W): palette indices as they are, the largest of several colours, no alpha."""
    if image.mode == "1":
        image = image.convert("L")  # False, True -> 0, 255
    colours = [i for i, band in enumerate(image.getbands()) if band != "A"]
    values = np.asarray(image)
    return values if values.ndim == 2 else values[..., colours].max(-1)


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
    below = [path for path in subfolders(root) if any(fnmatch(path.name.lower(), usual) for usual in names)]
    for folder in (root, *below, *(path for parent in below for path in subfolders(parent))):
        if holds(folder):
            return folder
    places = " or ".join(("it", *names))
    raise DataError(f"{root}: {name} not found: no {expected} in {places}; give the folder that holds it")


@dataclass(frozen=True)
class FolderLayout:
    """``<category>/{train/<normal>, test/<normal>, test/<defect>, ground_truth/<defect>}``.

    ``defects`` must be there, others are read where found; ``published`` has the counts of each category:
    train normal, test normal, test anomalous.
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
        train = normal_samples(list_images(folder / "train" / self.normal, problems))
        test = normal_samples(list_images(folder / "test" / self.normal, problems))
        found = {path.name for place in ("test", "ground_truth") for path in subfolders(folder / place)}
        defects = sorted((found | set(self.defects)) - {self.normal})
        if not defects:
            problems.append(f"{folder / 'test'}: no folder of anomalous images; restore it from the dataset")
        for defect in defects:
            images = list_images(folder / "test" / defect, problems)
            test += anomalous_samples(images, folder / "ground_truth" / defect, defect, problems)
        notes = count_notes(self.name, category, train, test, self.published)
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
