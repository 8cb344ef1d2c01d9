"""Any folder of images, in one of two forms; what a folder's name means is the table in `names.py`.

* Images directly in it, or in folders by date, camera or shift: all are normal, for training; the test is empty.
* A folder of good ones (``good``, ``OK``, ``normal`` ...) beside one folder per defect, as in anomalib's ``Folder``.
  Good images for the test stand in ``good_test`` or the like; without such a folder a fifth of the good ones, drawn
  with ``seed``, goes to the test.  Masks are optional, in ``masks/<defect>``, ``<defect>/masks`` or, beside one defect
  only, directly in ``masks``; as ``<stem>.*`` or ``<stem>_mask.*``.  A defect has one for each image or none at all.

Folders are read with all their sub-folders.  A name that may mean either is no guess: it is asked for, and the options
``good``, ``defects`` and ``masks`` (names of folders; "." is the folder itself) say what it holds.
A folder with ``train/good`` and ``test/<defect>`` is in the layout of MVTec AD: load it as "mvtec".
"""
import os
from collections import defaultdict
from pathlib import Path

from . import names
from .base import Dataset, Sample
from .layouts import fits_a_line, hold_out
from .pixels import DataError
from .tree import Entry, walk

OPTIONS = ("seed", "good", "defects", "masks")


def find(root):
    """The folder itself, if there is an image in it or below."""
    root = Path(os.path.abspath(Path(root).expanduser()))
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the one that holds images")
    if not any(entry.kind == "image" for entry in walk(root)):
        raise DataError(f"{root}: images not found in it or below; give the folder that holds them")
    return root


def categories(root):
    """One: the folder's own name."""
    return (root.name,)


def read(root, category, problems, seed=0, good=(), defects=(), masks=()):
    """The images of a folder in either form."""
    entries = walk(root)
    places = defaultdict(list)  # what lies in each folder directly below the root; "." for files in the root itself
    for entry in entries:
        if not fits_a_line(entry.path.name) and (entry.kind != "left out" or entry.lost):
            problems.append(f"{entry.path.parent}: {entry.path.name!r} has characters that no list can hold; rename it")
        elif entry.kind != "left out":
            below = entry.path.relative_to(root).parts
            places[below[0] if len(below) > 1 else "."].append(entry)
    given = [(_key(name), role) for role, listed in (("good", good), ("defect", defects), ("mask", masks))
             for name in dict.fromkeys(_listed(listed))]
    asked = dict(given)
    twice = {name for name, role in given if role != asked[name]}
    problems += [f"{root}: {name!r} was given as two things; name each folder once" for name in sorted(twice)]
    unknown = set(asked) - {_key(place) for place in places}
    problems += [f"{root}: no folder {name!r} in it, which was given; choose from {', '.join(sorted(places))}"
                 for name in sorted(unknown)]
    roles = {place: asked.get(_key(place)) or ("top" if place == "." else names.meaning(place)) for place in places}
    _settle(root, places, roles, problems)
    if problems:
        return Dataset("folder", category, root, (), (), ())

    of = {role: [place for place in places if roles[place] == role] for role in ("good", "good test", "defect", "mask")}
    train = [Sample(e.path, 0, None, "good") for place in of["good"] for e in places[place] if e.kind == "image"]
    test = [Sample(e.path, 0, None, "good") for place in of["good test"] for e in places[place] if e.kind == "image"]
    _refuse_twins([*train, *test], problems)
    if of["defect"] and not test:
        train, test = hold_out(train, seed)
    num_masks = 0
    for place in of["defect"]:
        samples = _anomalous(root, place, places, of, problems)
        num_masks += sum(sample.mask is not None for sample in samples)
        test += samples
    left = tuple(entry.left_out() for entry in entries if entry.kind == "left out")
    note = understood(root, places, roles, num_masks, left)
    return Dataset("folder", category, root, tuple(train), tuple(test), (note,), left_out=left)


def _refuse_twins(good, problems):
    """Masks beside good photographs, as the magnetic tiles have them, would be taken for photographs."""
    of_name = defaultdict(list)
    for sample in good:
        of_name[sample.image.with_suffix("")].append(sample.image)
    twins = [paths for paths in of_name.values() if len(paths) > 1]
    if twins:
        first, second, *_ = twins[0]
        problems.append(f"{first.parent}: {first.name} and {second.name} have one name, as do {len(twins)} in all; if "
                        "one is the mask of the other, keep the masks in another folder, else rename one")


def _listed(given) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _key(place: str) -> str:
    return place if place == "." else names.normalised(place)


def _settle(root, places, roles, problems):
    """Decide what the names alone leave open, in place, or add what must be asked to the problems."""
    if not any(role == "good" for role in roles.values()):
        trained = [place for place, role in roles.items() if role == "train"]
        if len(trained) == 1 and all(e.path.parent == root / trained[0] for e in places[trained[0]]):
            roles[trained[0]] = "good"
    good = [place for place, role in roles.items() if role == "good"]
    if any(names.meaning(entry.path.relative_to(root).parts[1]) == "good" for place, role in roles.items()
           if role in ("train", "test")
           for entry in places[place] if len(entry.path.relative_to(root).parts) > 2):
        problems.append(f"{root}: in the layout of MVTec AD; give {root / 'train' / 'good'} to fit, or --dataset mvtec "
                        f"--data-root {root.parent} --category {root.name}")
        return
    if not good and set(roles.values()) <= {"top", "group"}:
        roles.update((place, "good") for place in roles)
        return
    if not good and set(roles.values()) <= {"top", "mask"} and "." in places:
        roles["."] = "good"
        return
    if not good:
        found = ", ".join(sorted(place for place in places if place != "."))
        problems.append(f"{root}: no folder in it is called good, and it may be any of {found}; name it with --good "
                        "NAME, or --good . for all")
        return
    for place, role in roles.items():
        where, first = (root if place == "." else root / place), good[0]
        if (role == "good" and place != first and names.meaning(first) == names.meaning(place) == "good"
                and _key(place) != _key(first)):
            problems.append(f"{where}: good beside {first}; put both into one folder, or name one with --good and the "
                            "other with --defects")
        elif role == "mask" and not any(roles[other] in ("defect", "other") for other in roles):
            problems.append(f"{where}: masks without a defect's images beside them; add these or remove the masks")
        elif role == "top":
            problems.append(f"{where}: {len(places[place])} images directly in it, beside the folder {first}; say what "
                            "they are: --good . or --defects ., or give the folder of good ones alone")
        elif role in ("train", "test", "unclear", "group"):
            problems.append(f"{where}: not a defect beside {first}, and not clearly good; rename it, or say --good "
                            f"{place} or --defects {place}")
        elif role == "other":
            roles[place] = "defect"
        inside = {names.meaning(part) for entry in places[place] for part in entry.path.relative_to(where).parts[:-1]}
        if (role == "good" and "defect" in inside) or (role == "defect" and inside & {"good", "good test"}):
            problems.append(f"{where}: called {'good' if role == 'good' else 'a defect'}, with the other kind in a "
                            "folder inside; move that out")


def _anomalous(root, place, places, of, problems):
    """Samples of one defect, with their masks where it has any."""
    images = [entry for entry in places[place] if entry.kind == "image"]
    where = root if place == "." else root / place
    masks = {}
    for entry in places[place]:
        if entry.kind == "mask":
            _put(masks, entry, where, problems)
    direct = []
    for folder in of["mask"]:
        for entry in places[folder]:
            below = entry.path.relative_to(root / folder).parts
            if len(below) > 1 and _key(below[0]) == _key(place):
                _put(masks, entry, root / folder / below[0], problems)
            elif len(below) == 1:
                direct.append((folder, entry))
    for folder, entry in direct:
        if len(of["defect"]) == 1:
            _put(masks, entry, root / folder, problems)
        elif place == of["defect"][0]:
            problems.append(f"{entry.path.parent}: masks directly in it; move them to {folder}/<defect>")
            break
    if not masks:
        return [Sample(entry.path, 1, None, place) for entry in images]
    samples, used = [], {}
    for entry in images:
        keys = [key for key in _keys(entry.path, where) if key in masks]
        mask = masks[keys[0]].path if keys else None
        if mask is None:
            problems.append(f"{entry.path}: no mask {entry.path.stem}.* for it; add it or remove the image")
        elif mask in used:
            problems.append(f"{entry.path}: the same mask as {used[mask]}; keep one of the two")
        used.setdefault(mask, entry.path)
        samples.append(Sample(entry.path, 1, mask, place))
    problems += [f"{entry.path}: mask without an image; add the one or remove the other"
                 for entry in dict.fromkeys(masks.values())
                 if entry.path not in used]
    return samples


def _keys(path, folder):
    """What ties a mask to its image: the path below the defect's folder, else the name alone; without suffix, "_mask"
    and mask folders."""
    stem = names.normalised(path.stem)
    stem = stem.removesuffix("_mask") or stem
    inside = [names.normalised(part) for part in path.relative_to(folder).parts[:-1] if names.meaning(part) != "mask"]
    return ["/".join([*inside, stem]), stem]


def _put(masks: dict, entry: Entry, folder: Path, problems) -> None:
    first = masks.get(_keys(entry.path, folder)[0])
    if first:
        problems.append(f"{entry.path}: same name as {first.path.name}; keep one of the two")
    for key in _keys(entry.path, folder):
        masks.setdefault(key, entry)


def understood(root, places, roles, num_masks, left_out) -> str:
    """One line on what was read as what: "12 good (test) from good_test, 4 masks from gt, 3 defects from crack; not
    used: @eaDir".
    """
    said = {"good": "good", "good test": "good (test)", "defect": "defects", "mask": "masks"}
    parts = []
    for place, found in places.items():
        counts = [(sum(e.kind == kind for e in found), word)
                  for kind, word in (("image", said[roles[place]]), ("mask", "masks"))]
        where = "the folder itself" if place == "." else place
        parts += [f"{count} {word} from {where}" for count, word in counts if count]
    below = [left.path.relative_to(root) for left in left_out]
    unused = list(dict.fromkeys(path.as_posix() if path.parts[0] in places else path.parts[0] for path in below))
    others = f" and {len(unused) - 10} more" if len(unused) > 10 else ""
    more = f"; not used: {', '.join(unused[:10])}{others}" if unused else ""
    return ", ".join(parts) + more
