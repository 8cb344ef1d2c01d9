"""The loaders read tiny datasets drawn here in the real layouts, and say what is wrong with broken ones."""
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d3ad import data
from d3ad.data import btad, mtd, mvtec, visa
from d3ad.data.base import Sample, natural

SIZE = 24


def draw(path, mode="RGB", seed=0):
    """An image of noise; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    return path


def draw_mask(path, value=255):
    """A mask with a square of ``value``; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 8:20] = value
    Image.fromarray(mask).save(path)
    return path


def draw_folders(root, normal, defects, image=".png", mask=".png", mode="RGB", stem="{:03d}", mask_value=255):
    """A category: 3 normal training images, 2 normal test images, 2 anomalous ones of each defect."""
    for place, count in (("train", 3), ("test", 2)):
        for i in range(count):
            draw(root / place / normal / f"{i:03d}{image}", mode, i)
    for defect in defects:
        for i in range(2):
            draw(root / "test" / defect / f"{i:03d}{image}", mode, i)
            draw_mask(root / "ground_truth" / defect / f"{stem.format(i)}{mask}", mask_value)
    return root


def draw_visa(root, category="pcb1"):
    """The official layout of VisA, with masks of value 1."""
    rows = ["object,split,label,image,mask"]
    for i in reversed(range(5)):
        name = f"{category}/Data/Images/Normal/{i:04d}.JPG"
        draw(root / name, seed=i)
        rows.append(f"{category},{'train' if i < 3 else 'test'},normal,{name},")
    for i in range(2):
        name = f"{category}/Data/Images/Anomaly/{i:03d}.JPG"
        mask = f"{category}/Data/Masks/Anomaly/{i:03d}.png"
        draw(root / name, seed=i)
        draw_mask(root / mask, 1)
        rows.append(f"{category},test,anomaly,{name},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")
    return root


def draw_tiles(root, tiles=12):
    """Magnetic tiles: normal ones under 3 exposures, one image per defect; the crack is on a normal tile."""
    for i in range(3 * tiles):
        draw(root / f"MT_Free/Imgs/exp{i % 3 + 1}_num_{1000 * (i // 3) + 20 * (i % 3)}.jpg", "L", i)
    for i, defect in enumerate(name for name in mtd.PUBLISHED if name != "Free"):
        number = 60 if defect == "Crack" else 500_000 + 1000 * i
        image = draw(root / f"MT_{defect}/Imgs/exp1_num_{number}.jpg", "L")
        draw_mask(image.with_suffix(".png"), 128)
    return root


def counts(dataset):
    labels = dataset.labels("test")
    return len(dataset.train), int((labels == 0).sum()), int((labels == 1).sum())


def assert_sound(dataset, size=16):
    """Shapes, value ranges and labels of a loaded dataset."""
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        images, masks, labels = dataset.images(split, size), dataset.masks(split, size), dataset.labels(split)
        assert images.shape == (len(samples), 3, size, size) and images.dtype == torch.float32
        assert images.min() >= -1 and images.max() <= 1
        assert masks.shape == (len(samples), size, size) and masks.dtype == torch.bool
        assert labels.shape == (len(samples),) and labels.dtype == torch.int64
        assert torch.equal(masks.flatten(1).any(1), labels == 1)
    assert dataset.check() == []


# The layouts

def test_visa_official_and_converted_layouts_give_the_same_samples(tmp_path):
    draw_visa(tmp_path / "VisA")
    draw_folders(tmp_path / "VisA_pytorch/1cls/pcb1", "good", ["bad"], image=".JPG", mask_value=1)
    official = data.load("visa", tmp_path, "pcb1")
    converted = data.load("visa", tmp_path / "VisA_pytorch")
    assert official.root == tmp_path / "VisA" and converted.root == tmp_path / "VisA_pytorch/1cls"
    for dataset in (official, converted):
        assert_sound(dataset)
        assert counts(dataset) == (3, 2, 2)
        assert [sample.defect for sample in dataset.test] == ["good", "good", "bad", "bad"]
        assert "visa/pcb1: 3 training images, 904 published" in dataset.notes


@pytest.mark.parametrize("image, mask", [(".bmp", ".png"), (".png", ".png"), (".bmp", ".bmp")])
def test_btad_original_and_all_png(tmp_path, image, mask):
    draw_folders(tmp_path / "BTech_Dataset_transformed/01", "ok", ["ko"], image, mask)
    dataset = data.load("btad", tmp_path, "01")
    assert_sound(dataset)
    assert counts(dataset) == (3, 2, 2) and dataset.test[-1].defect == "ko"
    assert data.categories("btad", tmp_path) == ("01",)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_mvtec(tmp_path, mode):
    root = tmp_path / "mvtec_anomaly_detection"
    draw_folders(root / "zipper", "good", ["rough", "broken_teeth"], mode=mode, stem="{:03d}_mask")
    draw_folders(root / "grid", "good", ["bent"], mode=mode, stem="{:03d}_mask")
    assert data.categories("mvtec", tmp_path) == ("grid", "zipper")
    dataset = data.load("mvtec", str(root), "zipper")
    assert_sound(dataset)
    assert [sample.defect for sample in dataset.test] == ["good"] * 2 + ["broken_teeth"] * 2 + ["rough"] * 2


def test_counts_as_published_leave_no_note(tmp_path, monkeypatch):
    draw_folders(tmp_path / "bottle", "good", ["broken"])
    monkeypatch.setitem(mvtec.PUBLISHED, "bottle", (3, 2, 2))
    assert data.load("mvtec", tmp_path).notes == ()


def test_published_counts_add_up():
    sums = [[sum(column) for column in zip(*reader.PUBLISHED.values())] for reader in (visa, btad, mvtec)]
    assert sums == [[8659, 962, 1200], [1799, 451, 290], [3629, 467, 1258]]
    assert sum(mtd.PUBLISHED.values()) == 952 + 392


def test_folder_of_images_only(tmp_path):
    for i in (10, 9, 1):
        draw(tmp_path / f"{i}.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = data.load("folder", tmp_path)
    assert [sample.image.name for sample in dataset.train] == ["1.png", "9.png", "10.png"]
    assert dataset.images("test", 8).shape == (0, 3, 8, 8) and dataset.masks("test", 8).shape == (0, 8, 8)
    assert dataset.category == tmp_path.name


def test_folder_with_defects_and_some_masks(tmp_path):
    for i in range(10):
        draw(tmp_path / f"good/{i}.png", seed=i)
    draw(tmp_path / "dent/0.png")
    draw_mask(tmp_path / "masks/dent/0.png")
    dataset = data.load("folder", tmp_path, seed=3)
    assert counts(dataset) == (8, 2, 1)
    assert_sound(dataset)
    assert dataset == data.load("folder", tmp_path, seed=3)
    draw(tmp_path / "scratch/0.png")
    with pytest.raises(data.DataError, match=r"scratch/0\.png: anomalous but without a mask"):
        data.load("folder", tmp_path).masks("test", 8)


def test_folder_refuses_what_it_would_mislabel(tmp_path):
    for name in ("good/0.png", "normal/1.png", "test/2.png", "masks/3.png"):
        draw(tmp_path / name)
    with pytest.raises(data.DataError) as error:
        data.load("folder", tmp_path)
    assert all(str(tmp_path / name) in str(error.value) for name in ("normal", "test", "masks"))


# Magnetic tiles

def test_tiles_random_split(tmp_path):
    draw_tiles(tmp_path / "Magnetic-tile-defect-datasets.-master")
    dataset = data.load("mtd", tmp_path, seed=1)
    assert_sound(dataset)
    assert counts(dataset) == (29, 7, 5)
    assert dataset.category == "tiles" and dataset.mask_threshold == 127
    assert dataset == data.load("mtd", tmp_path, "tiles", split="random", seed=1)
    assert dataset.train != data.load("mtd", tmp_path, seed=2).train
    assert "mtd/tiles: 36 MT_Free images, 952 published" in dataset.notes


def test_tiles_with_an_empty_mask_stay_anomalous(tmp_path):
    draw_tiles(tmp_path)
    draw(tmp_path / f"MT_Uneven/Imgs/{mtd.EMPTY_MASKS[0]}.jpg", "L")
    draw_mask(tmp_path / f"MT_Uneven/Imgs/{mtd.EMPTY_MASKS[0]}.png", 0)
    dataset = data.load("mtd", tmp_path)
    row = [sample.image.stem for sample in dataset.test].index(mtd.EMPTY_MASKS[0])
    assert dataset.labels("test")[row] == 1 and not dataset.masks("test", SIZE)[row].any()
    assert mtd.EMPTY_MASKS[0] in dataset.notes[-1] and dataset.check() == []


def test_tiles_are_grouped_by_gaps_of_at_most_50():
    samples = [Sample(Path(f"exp1_num_{number}.jpg"), 0, None, "good") for number in (300, 0, 50, 101, 90)]
    groups = [[sample.image.stem for sample in group] for group in mtd.tiles(samples, [])]
    assert groups == [["exp1_num_0", "exp1_num_50", "exp1_num_90", "exp1_num_101"], ["exp1_num_300"]]


@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(st.tuples(st.integers(0, 3000), st.booleans()), min_size=1, unique_by=lambda n: n[0]),
       seed=st.integers(0, 9))
def test_split_by_tile_never_shares_a_tile(numbers, seed):
    samples = [Sample(Path(f"exp1_num_{n}.jpg"), int(bad), None, "") for n, bad in numbers]
    normal, anomalous = ([sample for sample in samples if sample.label == label] for label in (0, 1))
    train, held = mtd._split_by_tile(normal, anomalous, seed, [])
    assert sorted(train + held, key=normal.index) == normal
    assert len(held) >= round(0.2 * len(normal))
    for group in mtd.tiles(samples, []):
        assert not (set(group) & set(train) and set(group) & set(held + anomalous))


def test_split_by_tile_from_disk(tmp_path):
    draw_tiles(tmp_path / "mtd")
    dataset = data.load("mtd", tmp_path, split="by_tile")
    assert_sound(dataset)
    train, normal, _ = counts(dataset)
    assert train + normal == 36 and 7 <= normal <= 9
    assert {"exp1_num_0", "exp2_num_20"} <= {sample.image.stem for sample in dataset.test}  # the crack's tile
    draw(tmp_path / "mtd/MT_Free/Imgs/copy.jpg", "L")
    with pytest.raises(data.DataError, match=r"copy\.jpg: not named exp<N>_num_<id>"):
        data.load("mtd", tmp_path, split="by_tile")


@pytest.mark.skipif("D3AD_MTD" not in os.environ, reason="D3AD_MTD does not point to the magnetic tiles")
def test_the_published_magnetic_tiles():
    random = data.load("mtd", os.environ["D3AD_MTD"])
    by_tile = data.load("mtd", os.environ["D3AD_MTD"], split="by_tile")
    assert counts(random) == (762, 190, 392)
    assert sum(counts(by_tile)) == 1344 and 190 <= counts(by_tile)[1] <= 206
    assert len(random.notes) == 4 and all("empty as published" in note for note in random.notes)
    assert random.check() == []


# Pixels

MODES = {"1": "png", "L": "png", "LA": "png", "P": "png", "I;16": "png",
         "RGB": "jpg", "RGBA": "png", "CMYK": "jpg"}


@settings(max_examples=60, deadline=None)
@given(mode=st.sampled_from(sorted(MODES)), width=st.integers(1, 40), height=st.integers(1, 40),
       size=st.integers(1, 50), seed=st.integers(0, 99))
def test_images_of_any_mode_and_size_are_in_range(mode, width, height, size, seed):
    generator = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(generator.integers(0, 65536, (height, width), np.uint16))
    else:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"image.{MODES[mode]}")
        image.save(path)
        loaded = data.load_image(path, size)
    assert loaded.shape == (3, size, size) and loaded.dtype == torch.float32 and loaded.is_contiguous()
    assert loaded.min() >= -1 and loaded.max() <= 1


@settings(max_examples=30, deadline=None)
@given(threshold=st.integers(0, 254), seed=st.integers(0, 99))
def test_masks_are_exact_at_their_own_size(threshold, seed):
    values = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), np.uint8)
    with TemporaryDirectory() as folder:
        Image.fromarray(values).save(Path(folder, "mask.png"))
        mask = data.load_mask(Path(folder, "mask.png"), SIZE, threshold)
    assert torch.equal(mask, torch.from_numpy(values > threshold))


def test_a_mask_keeps_its_area_when_resized(tmp_path):
    values = np.zeros((SIZE, SIZE), np.uint8)
    values[:, :SIZE // 2] = 3
    Image.fromarray(values).save(tmp_path / "half.png")
    for size in (6, 12, 48):
        mask = data.load_mask(tmp_path / "half.png", size)
        assert mask[:, :size // 2].all() and not mask[:, size // 2:].any()


def test_black_and_white_are_the_ends_of_the_range_in_every_depth(tmp_path):
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        Image.fromarray(np.array([[0, white]], dtype)).save(tmp_path / "ends.png")
        assert data.load_image(tmp_path / "ends.png", 2)[:, 0].tolist() == [[-1, 1]] * 3


def test_16_bit_grey_keeps_its_precision(tmp_path):
    Image.fromarray(np.array([[30000, 30001]], np.uint16)).save(tmp_path / "deep.png")
    left, right = data.load_image(tmp_path / "deep.png", 2)[0, 0]
    assert right - left == pytest.approx(2 / 65535, rel=0.01)


def test_transparent_pixels_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (data.load_image(tmp_path / "clear.png", 4) == 1).all()


def test_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    photograph = np.zeros((2, 2, 3), np.uint8)
    photograph[0, 0] = 255
    Image.fromarray(photograph).save(tmp_path / "rotated.png", exif=exif)
    assert data.load_image(tmp_path / "rotated.png", 2)[0].tolist() == [[-1, 1], [-1, -1]]


@pytest.mark.parametrize("mode, value", [("1", 1), ("L", 1), ("P", 1), ("RGB", (0, 0, 9)),
                                         ("RGBA", (9, 0, 0, 255))])
def test_masks_of_any_mode(tmp_path, mode, value):
    mask = Image.new(mode, (4, 4), (0, 0, 0, 255) if mode == "RGBA" else 0)
    mask.putpixel((1, 2), value)
    mask.save(tmp_path / "mask.png")
    assert data.load_mask(tmp_path / "mask.png", 4).nonzero().tolist() == [[2, 1]]


def test_float_images_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(data.DataError, match=r"float\.tif.*8 or 16 bits"):
        data.load_image(tmp_path / "float.tif", 4)


# What is wrong is said, with names

def test_all_problems_of_a_dataset_at_once(tmp_path):
    root = draw_folders(tmp_path / "01", "ok", ["ko"])
    (root / "train/ok/000.png").write_bytes(b"")
    draw(root / "train/ok/001.bmp")
    (root / "ground_truth/ko/000.png").rename(root / "ground_truth/ko/007.png")
    (root / "test/ok/009.png").symlink_to("nowhere.png")
    with pytest.raises(data.DataError) as error:
        data.load("btad", tmp_path, "01")
    expected = {"train/ok/000.png: empty file", "train/ok/001.png: same name as 001.bmp",
                "test/ko/000.png: no mask", "ground_truth/ko/007.png: mask without an image",
                "test/ok/009.png: file not found"}
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(expected)
    assert all(any(line.startswith(f"{root}/{start}") for line in lines) for start in expected)


def test_a_missing_folder_is_one_problem(tmp_path):
    root = draw_folders(tmp_path / "bottle", "good", ["broken"], stem="{:03d}_mask")
    for path in (root / "ground_truth/broken").iterdir():
        path.unlink()
    (root / "ground_truth/broken").rmdir()
    draw_mask(root / "ground_truth/scratch/000_mask.png")
    with pytest.raises(data.DataError) as error:
        data.load("mvtec", tmp_path)
    assert str(error.value).splitlines()[1:] == [
        f"{root}/{folder}: folder not found; restore it from the dataset"
        for folder in ("ground_truth/broken", "test/scratch")]


def test_damaged_files_are_found_by_check_and_by_reading(tmp_path):
    root = draw_folders(tmp_path / "bottle", "good", ["broken"])
    for name in ("train/good/000.png", "train/good/001.png", "ground_truth/broken/001.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[:len(whole) // 2])
    Image.new("L", (9, 9), 255).save(root / "ground_truth/broken/000.png")
    dataset = data.load("mvtec", tmp_path)
    with pytest.raises(data.DataError, match=r"(?s)good/000\.png: cannot be.*good/001\.png: cannot be"):
        dataset.images("train", 8)
    problems = dataset.check()
    assert len(problems) == 4 and sum("cannot be read" in problem for problem in problems) == 3
    assert f"{root}/ground_truth/broken/000.png: (9, 9) pixels, image (24, 24); replace it" in problems


@pytest.mark.parametrize("name", data.NAMES)
def test_a_wrong_root_gives_one_line_that_names_it(tmp_path, name):
    for root in (tmp_path / "absent", tmp_path):
        with pytest.raises(data.DataError) as error:
            data.load(name, root)
        assert str(error.value).startswith(f"{root}: ") and "give the" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["../outside.png", "pcb1/../../outside.png", "/etc/passwd",
                                  "C:\\outside.png", "..\\outside.png", ""])
@pytest.mark.parametrize("column", ["image", "mask"])
def test_visa_paths_must_not_leave_the_folder(tmp_path, path, column):
    root = draw_visa(tmp_path / "VisA")
    draw(tmp_path / "outside.png")
    good = {"image": "pcb1/Data/Images/Normal/0000.JPG", "mask": "pcb1/Data/Masks/Anomaly/000.png"}
    row = {**good, column: path}
    rows = f"object,split,label,image,mask\npcb1,test,anomaly,{row['image']},{row['mask']}\n"
    (root / "split_csv/1cls.csv").write_text(rows)
    with pytest.raises(data.DataError, match=r"1cls\.csv, line 2: .* is not a path inside"):
        data.load("visa", root, "pcb1")


def test_visa_list_of_files_is_checked(tmp_path):
    root = draw_visa(tmp_path / "VisA")
    listing = root / "split_csv/1cls.csv"
    image = "pcb1/Data/Images/Normal/0000.JPG"
    more = [f"test,normal,{image}", f"train,anomaly,{image}", "train,normal,pcb1/gone.JPG"]
    listing.write_text(listing.read_text() + "".join(f"pcb1,{row},\n" for row in more))
    with pytest.raises(data.DataError) as error:
        data.load("visa", root, "pcb1")
    assert [line.split(";")[0].removeprefix(f"{root}/") for line in str(error.value).splitlines()[1:]] == [
        f"split_csv/1cls.csv, line 9: {image} is listed twice",
        f"split_csv/1cls.csv, line 10: split and label are not one of {visa.ALLOWED}",
        "pcb1/gone.JPG: file not found"]
    listing.write_text("image,label\n")
    with pytest.raises(data.DataError, match=r"1cls\.csv: no mask, object, split"):
        data.categories("visa", root)


def test_unknown_names_list_what_is_allowed(tmp_path):
    draw_folders(tmp_path / "01", "ok", ["ko"])
    draw_folders(tmp_path / "02", "ok", ["ko"])
    draw_tiles(tmp_path)
    with pytest.raises(ValueError, match="visa, btad, mvtec, mtd, folder"):
        data.load("imagenet", tmp_path)
    for category in ("09", None, "../01"):
        with pytest.raises(data.DataError, match="choose from 01, 02"):
            data.load("btad", tmp_path, category)
    with pytest.raises(ValueError, match="unknown option shuffle; allowed: split, seed"):
        data.load("mtd", tmp_path, shuffle=True)
    with pytest.raises(ValueError, match="allowed: random, by_tile"):
        data.load("mtd", tmp_path, split="by_day")
    with pytest.raises(ValueError, match="allowed: train, test"):
        data.load("btad", tmp_path, "01").images("val", 8)


# Identity

def test_fingerprint_follows_content_and_split_but_not_place(tmp_path):
    first = data.load("mtd", draw_tiles(tmp_path / "a"))
    second = data.load("mtd", draw_tiles(tmp_path / "b"))
    assert first.fingerprint() == second.fingerprint() and len(first.fingerprint()) == 16
    assert int(first.fingerprint(), 16) >= 0
    assert first.fingerprint() != data.load("mtd", tmp_path / "a", seed=1).fingerprint()
    moved = replace(first, train=first.train[:-1], test=first.train[-1:] + first.test)
    assert first.fingerprint() != moved.fingerprint()
    draw(second.train[0].image, "L", seed=77)
    assert first.fingerprint() != second.fingerprint()


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_files_are_in_natural_order(numbers):
    paths = [Path(f"image{number}.png") for number in numbers]
    assert sorted(paths, key=natural) == [Path(f"image{number}.png") for number in sorted(numbers)]
