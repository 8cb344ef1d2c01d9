"""Every file below a folder: an image, a mask, or left out, and why.  Nothing is passed over in silence."""
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import names
from .base import Dataset, LeftOut, Sample
from .layouts import natural
from .pixels import SUFFIXES, UNREAD_SUFFIXES, DataError, is_image

RECORD = ".d3ad/written.txt"  # in a folder of results: the names of the files that are ours


@dataclass(frozen=True)
class Entry:
    """One file.  ``name`` is what a list calls it: its path below the folder, with what no text can hold written as
    escapes."""
    path: Path
    name: str
    kind: str            # "image", "mask" or "left out"
    reason: str = ""     # why it is left out
    lost: bool = False   # left out, and may be somebody's photograph

    def left_out(self) -> LeftOut:
        """The entry as a `Dataset` lists it."""
        return LeftOut(self.path, self.reason, self.lost)


def walk(root: Path | str) -> list[Entry]:
    """All files below a folder, those of each folder in natural order before those of its sub-folders; links are
    followed.

    An image is what has the suffix of one, or begins as one; a mask is an image in a folder whose name means masks
    (`d3ad.data.names`), or beside the image whose name it bears with "_mask" behind.  No image is decoded.
    """
    root, entries, seen = Path(root), [], set()
    _walk(root, root, False, False, entries, seen)
    return entries


def results_in(folder: Path) -> set[Path]:
    """What `predict` wrote into a folder, by its own record of it: no photographs of anybody's."""
    try:
        names = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return set()
    return {folder / name for name in names}


def _walk(root: Path, folder: Path, masks: bool, hidden: bool, entries: list[Entry], seen: set,
          results: frozenset = frozenset()) -> None:
    try:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            entries.append(Entry(folder, _name(folder, root), "left out", "a link to a folder that is read already"))
            return
        seen.add((here.st_dev, here.st_ino))
        found = sorted(folder.iterdir(), key=natural)
        folders = dict.fromkeys(path for path in found if path.is_dir())  # a set in their order
    except OSError as error:
        entries.append(Entry(folder, _name(folder, root), "left out", f"the folder can't be read ({error.strerror})",
                             lost=True))
        return
    results = results | results_in(folder)
    files = [_entry(path, root, masks, hidden) for path in found if path not in folders]
    stems = {entry.path.stem.casefold() for entry in files if entry.kind == "image"}
    for entry in files:
        stem = entry.path.stem.casefold()
        if entry.kind == "image" and stem.endswith("_mask") and stem.removesuffix("_mask") in stems:
            entry = Entry(entry.path, entry.name, "mask")
        if entry.path in results:
            entry = Entry(entry.path, entry.name, "left out", "written by predict")
        entries.append(entry)
    for path in folders:
        what = names.meaning(path.name)
        _walk(root, path, masks or what == "mask", hidden or what == "system", entries, seen, results)


def _entry(path: Path, root: Path, masks: bool, hidden: bool) -> Entry:
    """One file, by its name and, where that says nothing, its first bytes."""
    suffix, name = path.suffix.lower(), _name(path, root)

    def out(reason: str, lost: bool = False) -> Entry:
        return Entry(path, name, "left out", reason, lost)

    try:
        kind = path.stat()
    except OSError:
        return out("file not found: a link that leads nowhere", suffix in SUFFIXES | UNREAD_SUFFIXES)
    if not stat.S_ISREG(kind.st_mode):
        return out("not a file")
    if hidden or names.is_hidden(path.name):
        return out("hidden, or left behind by a system")
    if suffix in UNREAD_SUFFIXES:
        return out(f"{suffix} photographs are not read", lost=True)
    if suffix not in SUFFIXES and not is_image(path):
        return out("not an image")
    if kind.st_size == 0:
        return out("empty file (0 bytes)", lost=True)
    return Entry(path, name, "mask" if masks else "image")


def _name(path: Path, root: Path) -> str:
    """The path below the root as text that a UTF-8 file can hold."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def collect(given: Iterable[str | Path]) -> list[Entry]:
    """What several arguments name: of a folder every file below it, else the file itself.

    With one folder names are paths below it; else they are as given, before what lies below.  What is named twice
    counts once.
    Raises `DataError` for a single argument that does not exist, and where nothing was given.
    """
    given, entries = [str(argument) for argument in given], []
    if not given:
        raise DataError("no photograph was given: name a folder, files, or - for a list of names on standard input")
    if len(given) == 1 and not os.path.lexists(os.path.expanduser(given[0])):
        raise DataError(f"{given[0]}: not a folder nor a file; give photographs or the folder that holds them")
    for argument in dict.fromkeys(given):
        path = Path(os.path.abspath(os.path.expanduser(argument)))
        if path.is_dir():
            before = "" if len(given) == 1 else argument.rstrip("/\\") + "/"
            entries += [Entry(e.path, before + e.name, e.kind, e.reason, e.lost) for e in walk(path)]
        else:
            entry = _entry(path, path.parent, masks=False, hidden=False)
            if entry.kind == "left out" and "hidden" in entry.reason and path.suffix.lower() in SUFFIXES:
                entry = Entry(path, entry.name, "image")  # named by hand, so it is meant
            name = entry.name if len(given) == 1 else os.fsencode(argument).decode("utf-8", "backslashreplace")
            lost = entry.lost or entry.kind == "left out"
            entries.append(Entry(entry.path, name, entry.kind, entry.reason, lost))
    return list({entry.path: entry for entry in reversed(entries)}.values())[::-1]


def only_good(images: list[Entry], root: Path | str) -> list[Entry]:
    """Of images below the folder `root` those in folders called good, where there are such folders; else all that don't
    lie in a folder of defects.

    Raises `DataError` where all lie in folders of defects.
    """
    meanings = [{names.meaning(part) for part in Path(entry.name).parts[:-1]} for entry in images]
    rest = [(entry, found) for entry, found in zip(images, meanings) if "defect" not in found]
    if images and not rest:
        raise DataError(f"{root}: all of its images lie in folders of defects; give a folder that holds good ones")
    return [entry for entry, found in rest if found & {"good", "good test"}] or [entry for entry, _ in rest]


def photographs(root: Path | str, good_only: bool = False) -> Dataset:
    """Every image below a folder as the test images of a `Dataset`, labels unknown (0); masks and the rest in
    ``left_out``.

    good_only: none from sub-folders of defects; where some are called good and others are not, the good ones only.
    Raises `DataError` where there is no folder, or no image in it, or, of good ones, no image outside its defects.
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the one that holds images")
    entries = walk(root)
    images = [entry for entry in entries if entry.kind == "image"]
    images = only_good(images, root) if good_only else images
    if not images:
        raise DataError(f"{root}: images not found in it or below; give the folder that holds them")
    left = tuple(entry.left_out() for entry in entries if entry.kind == "left out")
    samples = tuple(Sample(entry.path, 0, None, "good") for entry in images)
    return Dataset("folder", root.name, root, (), samples, (), left_out=left)
