"""Synthetic datasets: drawn parts, good and defective, written to disk in the layouts of the paper's datasets.

>>> from d3ad.data import synthetic
>>> image, mask = synthetic.draw("gear", np.random.default_rng(0), "broken_tooth")
>>> synthetic.write("/tmp/drawn", "mvtec", "gear", num_train=100, num_good=20, num_bad=35)
PosixPath('/tmp/drawn/mvtec_anomaly_detection')

What the pictures show is in `catalogue`; here a scene goes through a camera to image, mask and files.
Everything is determined by the arguments: image `index` of a split has a random stream of its own.
"""
import csv
import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_closing, binary_fill_holes, label

from d3ad.infra.files import in_turn, replacing, whole_file

from .catalogue import CATALOGUE
from .painting import stack

CATEGORIES = {"visa": ("board", "blister", "biscuit"), "btad": ("washer", "plank"),
              "mvtec": ("weave", "gear")}
FOLDERS = {"visa": "VisA", "btad": "BTech_Dataset_transformed", "mvtec": "mvtec_anomaly_detection"}
SMALL, MEDIUM = 0.005, 0.03  # shares of the image below which a region is small, medium
TRAIN, GOOD, BAD = range(3)  # the split's number in an image's seed
VERSION = 1  # raised when the drawings change, so that older files are drawn again
SEEN = 8  # grey levels by which a defect must change a pixel to be in the mask: above the camera's noise
SPLIT_HEADER = ("object", "split", "label", "image", "mask")


def _one_of(name: str, value, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}")


# --- One picture ----------------------------------------------------------------------------------------


def defects(category: str) -> tuple[str, ...]:
    """The names of the category's defects.  Raises ValueError for an unknown category."""
    _one_of("category", category, CATALOGUE)
    return tuple(CATALOGUE[category][1])


def regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The 8-connected regions of a mask (H, W), numbered from 1 in an int array, and how many there are."""
    return label(mask != 0, np.ones((3, 3)))


def draw(category: str, rng: np.random.Generator, defect: str | None = None, size: int = 256):
    """One picture of a category, normal or with the named defect.

    Returns the image, uint8 (size, size, 3), and the mask, uint8 (size, size) of 0 and 255: all 0 for a
    normal picture, else the one to three regions where the defect changed it.  For the same state of `rng`,
    the picture with a defect equals the normal one outside its mask.
    Raises ValueError for an unknown category or defect and for size < 64, RuntimeError where no defect can be seen.
    """
    _one_of("category", category, CATALOGUE)
    if defect is not None:
        _one_of("defect", defect, defects(category))
    if size < 64:
        raise ValueError(f"size must be at least 64; got {size}")
    look, flaw, camera = (np.random.default_rng(s) for s in rng.integers(2 ** 63, size=3))
    build, edits = CATALOGUE[category]
    scene = build(look)
    frame = _frame(camera)
    seen = _photograph(scene, frame, size)
    mask = np.zeros((size, size), bool)
    if defect is not None:
        for _ in range(100):  # now and then a defect is hidden, or in too many pieces: then another is made
            flawed = dict(scene)
            edits[defect](flawed, flaw)
            changed = _photograph(flawed, frame, size)
            mask = _changed(seen, changed)
            if 1 <= regions(mask)[1] <= 3:
                break
        else:
            raise RuntimeError(f"{category}: none of 100 drawings of {defect!r} shows in one to three regions at size "
                               f"{size}")
        seen = np.where(mask[..., None], changed, seen)
    return _expose(seen, camera), mask.astype(np.uint8) * 255


def _frame(rng) -> tuple[float, float, float]:
    """The camera's turn in radians (at most 2 degrees) and shifts in shares of the width (to 3 pixels)."""
    turn = np.clip(rng.normal(0, 0.012), -0.035, 0.035)
    return turn, *rng.uniform(-0.011, 0.011, 2)


def _photograph(scene, frame, size: int) -> np.ndarray:
    """The scene, painted at twice the size and seen through the camera: uint8 (size, size, 3)."""
    canvas = Image.new("RGB", (2 * size, 2 * size))
    stack(*scene.values())(canvas)
    turn, dx, dy = frame
    zoom = 0.94 * 2  # a margin of the canvas stays outside, so that no shift shows its edge
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    x0, y0 = (size * (1 + d) - (cos + s) * size / 2 for d, s in ((2 * dx, -sin), (2 * dy, sin)))
    lens = (cos, -sin, x0, sin, cos, y0)
    return np.asarray(canvas.transform((size, size), Image.AFFINE, lens, Image.BILINEAR))


def _changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where two pictures differ visibly, bool (H, W); gaps, where colours happen to agree, are closed."""
    differs = np.abs(after.astype(np.int16) - before).max(-1) >= SEEN
    size = len(differs)
    reach = max(1, size // 100)
    closed = binary_closing(np.pad(differs, reach), np.ones((3, 3)), iterations=reach)
    numbered, count = regions(binary_fill_holes(closed)[reach:-reach, reach:-reach])
    areas = np.bincount(numbered.ravel(), minlength=count + 1)
    areas[0] = 0
    return (areas >= max(4, size * size * 2e-4, 0.03 * areas.max()))[numbered]


def _expose(seen: np.ndarray, rng) -> np.ndarray:
    """Brightness, white balance, a slight gradient of light, and sensor noise."""
    size = len(seen)
    slope = rng.normal(0, 0.02, 2)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = 1 + rng.normal(0, 0.02) + slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    balance = (1 + rng.normal(0, 0.01, 3)).astype(np.float32)
    noise = 2.2 * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.clip(seen * light[..., None].astype(np.float32) * balance + noise, 0, 255).astype(np.uint8)


# --- On disk --------------------------------------------------------------------------------------------


def write_all(root, num_train: int, num_good: int, num_bad: int, seed: int = 0, size: int = 256,
              categories=CATEGORIES) -> dict[str, Path]:
    """`write` for every category of `categories` (layout -> names); the folder of each dataset by layout."""
    folders = {}
    for layout, names in categories.items():
        for name in names:
            folders[layout] = write(root, layout, name, num_train, num_good, num_bad, seed, size)
    return folders


def write(root, layout: str, category: str, num_train: int, num_good: int, num_bad: int, seed: int = 0,
          size: int = 256) -> Path:
    """Draw one category and write it under `root` in a real dataset's layout: "visa", "btad" or "mvtec".

    num_train, num_good, num_bad: training images, normal and anomalous test images, each at least 1.  The
    defects take turns, so that len(defects(category)) bad images show them all.
    Returns the dataset's folder.  A category there with the same arguments is left as it is, one drawn with
    other arguments is replaced.  A category appears under its name only once it is complete.
    Raises ValueError for a bad argument, FileExistsError where the category's folder was not drawn by us.
    """
    _one_of("layout", layout, FOLDERS)
    _one_of("category", category, CATALOGUE)
    counts = dict(num_train=num_train, num_good=num_good, num_bad=num_bad)
    arguments = dict(version=VERSION, layout=layout, category=category, **counts, seed=seed, size=size)
    for name, least in (*((name, 1) for name in counts), ("seed", 0), ("size", 64)):
        if arguments[name] < least:
            raise ValueError(f"{name} must be at least {least}; got {arguments[name]}")
    folder = Path(root) / FOLDERS[layout]
    final = folder / category
    if _drawn(final) != arguments:
        if final.exists() and _drawn(final) is None:
            raise FileExistsError(f"{final} was not drawn by d3ad; choose another root, or move it away")
        with replacing(final) as partial:
            _write_images(partial, **arguments)
            (partial / "drawn.json").write_text(json.dumps(arguments, indent=1) + "\n")
    if layout == "visa":
        with in_turn(folder.with_name(f"{folder.name}.lock")):  # else one of two processes could undo the other's rows
            _write_split(folder)
    return folder


def _drawn(folder: Path) -> dict | None:
    """The arguments a category was drawn with; None where it was not drawn."""
    path = folder / "drawn.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _write_images(folder: Path, layout, category, num_train, num_good, num_bad, seed, size, version) -> None:
    kinds = defects(category)
    for split, count in ((TRAIN, num_train), (GOOD, num_good), (BAD, num_bad)):
        for index in range(count):
            defect = kinds[index % len(kinds)] if split == BAD else None
            rng = np.random.default_rng([seed, zlib.crc32(category.encode()), split, index])
            image, mask = draw(category, rng, defect, size)
            image_path, mask_path = _paths(layout, category, split, index, num_train, kinds)
            _save(folder / image_path, image)
            if defect:
                number = 1 + kinds.index(defect) if layout == "visa" else 255  # VisA numbers the defects
                _save(folder / mask_path, mask // 255 * number)


def _paths(layout, category, split, index, num_train, kinds) -> tuple[str, str]:
    """Where an image and its mask belong, relative to the category's folder."""
    if layout == "visa":
        if split == BAD:
            return f"Data/Images/Anomaly/{index:03}.JPG", f"Data/Masks/Anomaly/{index:03}.png"
        return f"Data/Images/Normal/{index + num_train * (split == GOOD):04}.JPG", ""
    if layout == "btad":
        suffix = "bmp" if category == "washer" else "png"
        place = ("train/ok", "test/ok", "test/ko")[split]
        return f"{place}/{index:04}.{suffix}", f"ground_truth/ko/{index:04}.png"
    if split == BAD:
        defect, index = kinds[index % len(kinds)], index // len(kinds)
        return f"test/{defect}/{index:03}.png", f"ground_truth/{defect}/{index:03}_mask.png"
    return f"{('train/good', 'test/good')[split]}/{index:03}.png", ""


def _save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {".JPG": {"quality": 95}, ".png": {"compress_level": 1}}  # weak, but five times faster
    Image.fromarray(values).save(path, **options.get(path.suffix, {}))


def _write_split(folder: Path) -> None:
    """VisA's list of files: the drawn categories' rows follow from their arguments, all others are kept."""
    path = folder / "split_csv/1cls.csv"
    drawn = {item.parent.name: json.loads(item.read_text()) for item in folder.glob("*/drawn.json")}
    rows = []
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            kept = (row for row in csv.DictReader(file) if row["object"] not in drawn)
            rows = [tuple(row[name] for name in SPLIT_HEADER) for row in kept]
    for name, made in drawn.items():
        for split, count in ((TRAIN, made["num_train"]), (GOOD, made["num_good"]), (BAD, made["num_bad"])):
            for index in range(count):
                image, mask = _paths("visa", name, split, index, made["num_train"], defects(name))
                kind = [("train", "normal"), ("test", "normal"), ("test", "anomaly")][split]
                rows.append((name, *kind, f"{name}/{image}", f"{name}/{mask}" if mask else ""))
    _write_csv(path, SPLIT_HEADER, sorted(rows))


def _write_csv(path: Path, header, rows) -> None:
    """Write a table so that a reader finds the old one or the new one, never a part."""
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
