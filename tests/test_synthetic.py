"""The synthetic datasets: same arguments, same bytes; true masks; the readers' layouts; safe writing."""
import csv
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from d3ad.data import load, synthetic

ALL = [name for names in synthetic.CATEGORIES.values() for name in names]
SMALL_SIZE = 96  # large enough to see every defect, small enough to be quick


def rng(*seed):
    return np.random.default_rng(seed)


def files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("category", ALL)
def test_a_defect_changes_the_picture_inside_its_mask_and_nowhere_else(category):
    normal, empty = synthetic.draw(category, rng(1), size=SMALL_SIZE)
    assert normal.shape == (SMALL_SIZE, SMALL_SIZE, 3) and normal.dtype == empty.dtype == np.uint8
    assert not empty.any()
    assert len(synthetic.defects(category)) >= 5
    for defect in synthetic.defects(category):
        image, mask = synthetic.draw(category, rng(1), defect, SMALL_SIZE)
        assert set(np.unique(mask)) == {0, 255} and 1 <= synthetic.regions(mask)[1] <= 3, defect
        assert np.array_equal(image[mask == 0], normal[mask == 0]), defect
        changed = np.abs(image.astype(int) - normal).max(-1)[mask == 255]
        assert (changed > 3).mean() > 0.6, defect


@pytest.mark.parametrize("category", ALL)
def test_drawing_is_determined_by_the_stream(category):
    first, again, other = (synthetic.draw(category, rng(seed), size=SMALL_SIZE)[0] for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="category 'pcb1'; allowed: board"):
        synthetic.draw("pcb1", rng(0))
    with pytest.raises(ValueError, match="defect 'rust'; allowed: scratch"):
        synthetic.draw("board", rng(0), "rust")
    with pytest.raises(ValueError, match="layout 'coco'; allowed: visa"):
        synthetic.write(tmp_path, "coco", "board", 1, 1, 1)
    with pytest.raises(ValueError, match="num_bad"):
        synthetic.write(tmp_path, "visa", "board", 1, 1, 0)
    with pytest.raises(ValueError, match="size"):
        synthetic.write(tmp_path, "visa", "board", 1, 1, 1, size=10)
    assert not list(tmp_path.iterdir())


def test_a_defect_that_never_shows_is_named(monkeypatch):
    monkeypatch.setattr(synthetic, "_photograph", lambda scene, frame, size: np.zeros((size, size, 3), np.uint8))
    with pytest.raises(RuntimeError, match="board: none of 100 drawings of 'scratch'"):
        synthetic.draw("board", rng(0), "scratch", 64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    return synthetic.write_all(root, 2, 2, 8, seed=3, size=SMALL_SIZE)


def test_layouts_are_those_of_the_real_datasets(drawn):
    names = {layout: files(folder) for layout, folder in drawn.items()}
    assert {folder.name for folder in drawn.values()} == {"VisA", "BTech_Dataset_transformed",
                                                          "mvtec_anomaly_detection"}
    for name in ("board/Data/Images/Normal/0003.JPG", "board/Data/Images/Anomaly/007.JPG",
                 "biscuit/Data/Masks/Anomaly/000.png", "split_csv/1cls.csv"):
        assert name in names["visa"]
    for name in ("washer/train/ok/0000.bmp", "washer/test/ko/0007.bmp", "washer/ground_truth/ko/0007.png",
                 "plank/test/ok/0001.png"):
        assert name in names["btad"]
    for name in ("weave/train/good/001.png", "gear/test/undrilled/000.png",
                 "gear/ground_truth/undrilled/000_mask.png", "gear/test/scratch/001.png"):
        assert name in names["mvtec"]
    assert not any("partial" in name for found in names.values() for name in found)


def test_the_real_readers_read_them(drawn):
    for layout, folder in drawn.items():
        for category in synthetic.CATEGORIES[layout]:
            dataset = load(layout, folder.parent, category)
            labels = [sample.label for sample in dataset.test]
            assert (len(dataset.train), labels.count(0), labels.count(1)) == (2, 2, 8)


def test_visa_split_is_sorted_and_its_masks_number_the_defects(drawn):
    with open(drawn["visa"] / "split_csv/1cls.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["object", "split", "label", "image", "mask"]
    assert rows == sorted(rows) and len(rows) == 3 * 12
    assert all(bool(row[4]) == (row[2] == "anomaly") for row in rows)
    values = {int(np.asarray(Image.open(drawn["visa"] / row[4])).max()) for row in rows if row[4]}
    assert values == set(range(1, 8))


def test_defects_of_all_sizes_occur(drawn):
    sizes = set()
    for path in [*drawn["visa"].glob("*/Data/Masks/Anomaly/*.png"), *drawn["mvtec"].glob("*/ground_truth/*/*.png")]:
        numbered, count = synthetic.regions(np.asarray(Image.open(path)))
        shares = np.bincount(numbered.ravel(), minlength=count + 1)[1:] / numbered.size
        sizes |= {"small" if share < synthetic.SMALL else "medium" if share < synthetic.MEDIUM else "large"
                  for share in shares}
    assert sizes == {"small", "medium", "large"}


def test_an_image_depends_only_on_seed_category_split_and_index(drawn, tmp_path):
    folder = synthetic.write(tmp_path, "mvtec", "gear", 1, 3, 1, seed=3, size=SMALL_SIZE)
    for name in ("gear/train/good/000.png", "gear/test/good/001.png", "gear/test/scratch/000.png"):
        assert (folder / name).read_bytes() == (drawn["mvtec"] / name).read_bytes()
    stream = rng(3, zlib.crc32(b"gear"), synthetic.GOOD, 1)
    image = synthetic.draw("gear", stream, size=SMALL_SIZE)[0]
    assert np.array_equal(image, np.asarray(Image.open(folder / "gear/test/good/001.png")))


def test_writing_resumes_replaces_and_never_leaves_a_half(tmp_path, monkeypatch):
    def write(**options):
        return synthetic.write(tmp_path, "visa", "biscuit", 1, 1, 2, size=64, **options)

    real, count = synthetic.draw, iter(range(100))

    def failing(*args):
        if next(count) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(synthetic, "draw", failing)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    folder = write()
    first = files(folder / "biscuit")
    (folder / "split_csv/1cls.csv").unlink()  # as if interrupted after the rename
    monkeypatch.setattr(synthetic, "draw", None)  # the same arguments draw nothing
    write()
    assert files(folder / "biscuit") == first and (folder / "split_csv/1cls.csv").exists()
    monkeypatch.setattr(synthetic, "draw", real)
    write(seed=1)
    assert json.loads((folder / "biscuit/drawn.json").read_text())["seed"] == 1
    assert files(folder / "biscuit") != first


def test_a_folder_not_drawn_by_us_is_left_alone(tmp_path):
    (tmp_path / "VisA/board").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="not drawn"):
        synthetic.write(tmp_path, "visa", "board", 1, 1, 1, size=64)
    table = tmp_path / "VisA/split_csv/1cls.csv"
    table.parent.mkdir()
    table.write_text("object,split,label,image,mask\npcb1,train,normal,a.JPG,\n")
    synthetic.write(tmp_path, "visa", "biscuit", 1, 1, 1, size=64)
    assert "pcb1,train,normal,a.JPG,\n" in table.read_text() and table.read_text().count("\n") == 5
