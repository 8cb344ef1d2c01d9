"""VisA: 12 categories of photographed objects (Zou et al., SPot-the-Difference, ECCV 2022). CC BY 4.0.

From https://github.com/amazon-science/spot-diff. Two layouts are read: the official one, where
``split_csv/1cls.csv`` names every file, and the converted one,
``<category>/{train/good,test/good,test/bad,ground_truth/bad}``. Both give the same samples in the same order,
with the defect called "bad". Any mask value other than 0 is anomalous.
"""
import csv
from pathlib import PureWindowsPath

from .base import Dataset, Sample
from .layouts import FolderLayout, check_file, count_notes, find_root, fits_a_line, natural, subfolders
from .pixels import DataError

OPTIONS = ()
PUBLISHED = {
    "candle": (900, 100, 100), "capsules": (542, 60, 100), "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100), "fryum": (450, 50, 100), "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100), "pcb1": (904, 100, 100), "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100), "pcb4": (904, 101, 100), "pipe_fryum": (450, 50, 100),
}
FOLDERS = ("visa*", "1cls")
CONVERTED = FolderLayout("visa", FOLDERS, PUBLISHED, "good", ("bad",))
SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
ALLOWED = (("train", "normal"), ("test", "normal"), ("test", "anomaly"))


def find(root):
    """The folder of the dataset under ``root``."""
    return find_root(root, FOLDERS, lambda path: (path / SPLIT).is_file() or CONVERTED.categories(path),
                     "visa", f"{SPLIT} and no <category>/train/good")


def categories(root):
    """The categories in the dataset's folder; of the official layout those with a folder beside the list."""
    if not (root / SPLIT).is_file():
        return CONVERTED.categories(root)
    listed = {row["object"] for _, row in _rows(root)}
    found = tuple(path.name for path in subfolders(root) if path.name in listed)
    if not found:
        raise DataError(f"{root / SPLIT}: no category in it has a folder in {root}; extract VisA in full")
    return found


def read(root, category, problems):
    """One category of either layout."""
    if not (root / SPLIT).is_file():
        return CONVERTED.read(root, category, problems)
    splits, seen = {"train": [], "test": []}, set()
    for where, row in _rows(root):
        if row["object"] != category:
            continue
        if (row["split"], row["label"]) not in ALLOWED:
            problems.append(f"{where}: split and label are not one of {ALLOWED}; correct the row")
            continue
        if _posix(row["image"]) in seen:
            problems.append(f"{where}: {row['image']} is listed twice; remove one of the rows")
        seen.add(_posix(row["image"]))
        image, label, mask, defect = _inside(root, row["image"], where, problems), 0, None, "good"
        if row["label"] == "anomaly":
            label, mask, defect = 1, _inside(root, row["mask"], where, problems), "bad"
        splits[row["split"]].append(Sample(image, label, mask, defect))
    train, test = (sorted(found, key=lambda s: (s.label, natural(s.image))) for found in splits.values())
    notes = count_notes("visa", category, train, test, PUBLISHED)
    return Dataset("visa", category, root, tuple(train), tuple(test), tuple(notes))


def _rows(root):
    """(where, row) for every row of the list of files; an absent field is ""."""
    path = root / SPLIT
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            header = reader.fieldnames or ()
            rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except (csv.Error, UnicodeError) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); restore it from the dataset") from error
    missing = set(COLUMNS) - set(header)
    if missing:
        raise DataError(f"{path}: no {', '.join(sorted(missing))}; its header must be {','.join(COLUMNS)}")
    return rows


def _inside(root, name, where, problems):
    """The path of a listed file, which must not leave the dataset's folder on any operating system."""
    path = PureWindowsPath(name)  # knows both kinds of slash, and drives
    if not name or path.anchor or ".." in path.parts or not fits_a_line(name):
        problems.append(f"{where}: {name!r} is not a path inside {root}; correct the row")
    else:
        check_file(root / _posix(name), problems)
    return root / _posix(name)


def _posix(name):
    """A listed path with forward slashes: lists made on Windows have the others."""
    return PureWindowsPath(name).as_posix() if name else name
