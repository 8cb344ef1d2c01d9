"""Broken datasets, wrong roots and unknown names are refused, and what is wrong is said with names."""
import pytest
from PIL import Image
from tiny_datasets import draw, draw_folders, draw_mask, draw_tiles, draw_visa

from d3ad import data
from d3ad.data import visa


def test_all_problems_of_a_dataset_at_once(tmp_path):
    root = draw_folders(tmp_path / "01", "ok", ["ko"])
    (root / "train/ok/000.png").write_bytes(b"")
    draw(root / "train/ok/001.bmp")
    (root / "ground_truth/ko/000.png").rename(root / "ground_truth/ko/007.png")
    (root / "test/ok/009.png").symlink_to("nowhere.png")
    (root / "train/ok/of_a_phone.HEIC").write_bytes(b"x")
    with pytest.raises(data.DataError) as error:
        data.load("btad", tmp_path, "01")
    expected = {"train/ok/000.png: empty file", "train/ok/001.png: same name as 001.bmp",
                "test/ko/000.png: no mask", "ground_truth/ko/007.png: mask without an image",
                "test/ok/009.png: file not found", "train/ok/of_a_phone.HEIC: .HEIC photographs are not read"}
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
    with pytest.raises(ValueError, match="visa, btad, mvtec, mtd, elpv, folder"):
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
