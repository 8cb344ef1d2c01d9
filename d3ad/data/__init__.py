"""One way into every dataset: ``load(name, root, category)``.

>>> from d3ad import data
>>> data.categories("visa", "~/datasets")
('candle', 'capsules', ...)
>>> pcb1 = data.load("visa", "~/datasets", "pcb1")
>>> pcb1.images("train", 256).shape
torch.Size([904, 3, 256, 256])

Nothing is downloaded. ``load`` opens no image: it lists the files, pairs images with masks, and reports all
that is wrong in one `DataError`; `Dataset.check` then decodes every file.
"""
import warnings
from importlib import import_module

from .base import Dataset, LeftOut, Sample
from .pixels import DataError, load_image, load_mask
from .tree import photographs

NAMES = ("visa", "btad", "mvtec", "mtd", "elpv", "folder")  # a module each, with READER or the same functions

__all__ = ["NAMES", "DataError", "Dataset", "LeftOut", "Sample", "categories", "load", "load_image", "load_mask",
           "open_folder", "photographs", "warn_of_left_out"]


def categories(name, root) -> tuple[str, ...]:
    """The categories of dataset ``name`` found under ``root``, sorted.

    Raises ValueError for an unknown name, `DataError` where ``root`` does not hold the dataset.
    """
    reader = _reader(name)
    return reader.categories(reader.find(root))


def load(name, root, category=None, **options) -> Dataset:
    """Read one category of a dataset, which may be left out where there is only one.

    ``root`` is the dataset's folder, or one that holds it under its usual name. Options: ``split`` ("random"
    or "by_tile") and ``seed`` for "mtd"; ``seed`` for "elpv", whose root may be None: its package; ``seed``, ``good``,
    ``defects`` and ``masks`` (names of folders) for "folder". Raises ValueError for an unknown name or option, and
    `DataError` where the dataset or category is not found, or with a line for each file that is missing, empty or
    ambiguous. Counts other than the published ones are no error: see ``Dataset.notes``.
    """
    reader = _reader(name)
    unknown = set(options) - set(reader.OPTIONS)
    if unknown:
        raise ValueError(f"dataset {name!r}: unknown option {', '.join(sorted(unknown))}; "
                         f"allowed: {', '.join(reader.OPTIONS) or 'none'}")
    root = reader.find(root)
    found = reader.categories(root)
    if category is None and len(found) == 1:
        category = found[0]
    if category not in found:
        raise DataError(f"{root}: no category {category!r} of {name}; choose from {', '.join(found)}")

    problems = []
    dataset = reader.read(root, category, problems, **options)
    if not dataset.train and not problems:
        problems.append(f"{root}: no training image of {category!r}; add normal images")
    if problems:
        raise DataError("\n".join([f"{name}/{category} cannot be used, {len(problems)} problems to fix:", *problems]))
    return dataset


def open_folder(folder, split) -> Dataset:
    """The `Dataset` of any folder: its good images for "train", else every image in it and below ("good": those
    known to be).

    Warns of files that may be photographs and are left out.  Raises `DataError` where it holds no image.
    """
    dataset = load("folder", folder) if split == "train" else photographs(folder, split == "good")
    warn_of_left_out(dataset, stacklevel=5)
    return dataset


def warn_of_left_out(dataset, stacklevel=3) -> None:
    """Warn of files that may be photographs and are left out of a `Dataset`, in the name of the caller's caller."""
    lost = [str(left) for left in dataset.left_out if left.lost]
    if lost:
        warnings.warn(f"{len(lost)} files are left out: {'; '.join(lost[:5])}", stacklevel=stacklevel)


def _reader(name):
    if name not in NAMES:
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(NAMES)}")
    module = import_module(f"d3ad.data.{name}")
    return getattr(module, "READER", module)
