"""ELPV: 2,624 solar cells under electroluminescence (Buerhop-Lopez et al. 2018; Deitsch et al. 2019). CC BY-NC-SA 4.0.

It comes with the pip package `elpv-dataset` (``labels.csv`` and ``images/cellNNNN.png``, 300 x 300, grey), or lies in a
folder of that layout. Each cell has the probability that it is defective, by experts: 0 is good here, 1 anomalous; what
lies between is left out, and a note says how many. A fifth of the good cells, drawn at random, is for the test. There
are no masks.
"""
from importlib.util import find_spec
from pathlib import Path

from .base import Dataset, Sample
from .layouts import differences, find_root, hold_out, normal_samples
from .pixels import DataError

OPTIONS = ("seed",)
PACKAGE = "elpv-dataset==1.0.0.post1"
PUBLISHED = {"mono": (588, 313), "poly": (920, 402)}  # good, anomalous


def find(root=None):
    """The folder that holds labels.csv: under ``root``, or, where none is given, in the installed package."""
    if root is None:
        spec = find_spec("elpv_dataset")  # finds the package, and doesn't run it
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"elpv: its package is not installed: pip install {PACKAGE}")
        root = spec.submodule_search_locations[0]
    return find_root(root, ("data", "elpv*"),
                     lambda path: (path / "labels.csv").is_file() and (path / "images").is_dir(),
                     "elpv", "labels.csv and images")


def categories(root):
    """Both kinds of cells."""
    return tuple(PUBLISHED)


def read(root, category, problems, seed=0):
    """One kind of cells; ``seed`` draws the good ones for the test."""
    good, anomalous, between = [], [], 0
    for number, line in enumerate((root / "labels.csv").read_text(encoding="utf-8").splitlines(), 1):
        try:
            name, probability, kind = line.split()
            image, probability = root / name, float(probability)
        except ValueError:
            problems.append(f"{root / 'labels.csv'}: line {number} is not 'image probability kind'; restore it from "
                            "the package")
            continue
        if kind != category:
            continue
        if not image.is_file():
            problems.append(f"{image}: missing; restore it from the package")
        elif probability in (0.0, 1.0):
            (anomalous if probability else good).append(Path(image))
        else:
            between += 1
    train, held = hold_out(normal_samples(good), seed)
    test = held + [Sample(image, 1, None, "defective") for image in anomalous]
    notes = differences(f"elpv/{category}", {"good": len(good), "anomalous": len(anomalous)}, PUBLISHED[category])
    notes.append(f"elpv/{category}: {between} cells of uncertain state are left out")
    return Dataset("elpv", category, root, tuple(train), tuple(test), tuple(notes))
