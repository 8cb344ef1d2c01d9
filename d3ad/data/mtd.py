"""Magnetic tiles, MTD (Huang et al., The Visual Computer 2020). No licence file; its authors welcome its use.

From https://github.com/abin24/Magnetic-tile-defect-datasets. In ``MT_<class>/Imgs`` each ``<stem>.jpg`` lies
beside its mask ``<stem>.png``, whose intermediate greys are cut at 127. There is no published split:

* ``split="random"``: 80 % of the normal images for training, as in the literature (762; test 190 + 392).
* ``split="by_tile"``: files are ``exp<exposure>_num_<id>``, and ids at most 50 apart show one tile under
  several exposures, so a random split tests on tiles seen in training. Here no tile is on both sides: normal
  images of a tile that also has an anomalous image go to the test (63 of 952), then whole tiles drawn at
  random follow until the test holds 20 % of the normal images.
"""
import random
import re

from .base import Dataset
from .layouts import anomalous_samples, differences, find_root, hold_out, list_images, normal_samples

OPTIONS = ("split", "seed")
PUBLISHED = {"Free": 952, "Blowhole": 115, "Break": 85, "Crack": 57, "Fray": 32, "Uneven": 103}
EMPTY_MASKS = ("exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057")  # as published
LARGEST_GAP = 50


def find(root):
    """The folder of the dataset under ``root``."""
    return find_root(root, ("mtd*", "magnetic*"), lambda path: (path / "MT_Free/Imgs").is_dir(),
                     "mtd", "MT_Free/Imgs")


def categories(root):
    """One: "tiles"."""
    return ("tiles",)


def read(root, category, problems, split="random", seed=0):
    """All tiles, divided as the module's docstring says. Raises ValueError for an unknown split."""
    if split not in ("random", "by_tile"):
        raise ValueError(f"dataset 'mtd': unknown split {split!r}; allowed: random, by_tile")
    images = {name: list_images(root / f"MT_{name}/Imgs", problems, {".jpg"}) for name in PUBLISHED}
    counts = {f"MT_{name}": len(found) for name, found in images.items()}
    normal, anomalous = normal_samples(images.pop("Free")), []
    for name, found in images.items():
        if found:
            anomalous += anomalous_samples(found, root / f"MT_{name}/Imgs", name.lower(), problems, {".png"})
    if split == "random":
        train, held = hold_out(normal, seed)
    else:
        train, held = _split_by_tile(normal, anomalous, seed, problems)
    notes = differences("mtd/tiles", counts, PUBLISHED.values())
    notes += [f"mtd/tiles: the mask of {sample.image.stem} is empty as published; the image stays anomalous"
              for sample in anomalous if sample.image.stem in EMPTY_MASKS]
    test = tuple(held + anomalous)
    return Dataset("mtd", category, root, tuple(train), test, tuple(notes), mask_threshold=127)


def tiles(samples, problems):
    """Samples grouped by tile: in the order of their ids, a gap above 50 starts the next tile."""
    groups, last = [], None
    for number, sample in sorted(_numbered(samples, problems), key=lambda pair: (pair[0], pair[1].image)):
        if last is None or number - last > LARGEST_GAP:
            groups.append([])
        groups[-1].append(sample)
        last = number
    return groups


def _numbered(samples, problems):
    for sample in samples:
        match = re.fullmatch(r"exp\d+_num_(\d+)", sample.image.stem)
        if match:
            yield int(match[1]), sample
        else:
            problems.append(f"{sample.image}: not named exp<N>_num_<id>; rename it, or use split='random'")


def _split_by_tile(normal, anomalous, seed, problems):
    """(train, test) of the normal images, no tile in both nor with an anomalous image in train."""
    train, held = [], set()
    for group in tiles(normal + anomalous, problems):
        if any(sample.label for sample in group):
            held.update(group)
        else:
            train.append(group)
    random.Random(seed).shuffle(train)
    while train and len(held.intersection(normal)) < round(0.2 * len(normal)):
        held.update(train.pop())
    return [s for s in normal if s not in held], [s for s in normal if s in held]
