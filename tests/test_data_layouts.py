"""VisA, BTAD, MVTec and plain folders are read from tiny datasets drawn in the real layouts."""
import pytest
from tiny_datasets import assert_sound, counts, draw, draw_folders, draw_mask, draw_visa

from d3ad import data
from d3ad.data import btad, mtd, mvtec, visa


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


def test_masks_beside_good_photographs_are_not_trained_on(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg", "b.png", "c.jpg"):
        draw(tmp_path / name)
    with pytest.raises(data.DataError, match=r"a.jpg and a.png have one name, as do 2 in all; .*in another folder"):
        data.load("folder", tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).unlink()
    assert len(data.load("folder", tmp_path).train) == 3
