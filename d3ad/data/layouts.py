"""Files in layouts, for the loaders: listed, paired with their masks, divided, counted.

What is wrong is added to ``problems``, so that all of it can be reported at once.
"""
import os
import random
import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from .base import Dataset, Sample, counts
from .pixels import SUFFIXES, UNREAD_SUFFIXES, DataError


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
    problems += [f"{path}: {path.suffix} photographs are not read; convert or remove it" for path in _visible(folder)
                 if path.suffix.lower() in UNREAD_SUFFIXES and not path.is_dir()]
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


def count_notes(name, category, train, test, published):
    """Notes on how (train, normal test, anomalous test) differ from ``published[category]``."""
    if category not in published:
        return [f"{name}/{category}: not a published category, so its counts are not checked"]
    return differences(f"{name}/{category}", counts(train, test), published[category])


def differences(label, found, published):
    """One note per count that differs: "visa/pcb1: 900 training images, 904 published"."""
    return [f"{label}: {count} {what} images, {expected} published"
            for (what, count), expected in zip(found.items(), published) if count != expected]
