"""Bad image files and folders of datasets, each with what is said about it.

See also test_data_problems.py.
"""
import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from bad_inputs import TABLES, table
from PIL import Image
from tiny_datasets import SIZE, draw, draw_folders, draw_mask, draw_tiles, draw_visa

from d3ad import data
from d3ad.app import cli

# ---- image files ----


def encoded(kind="png", mode="RGB", size=(9, 9), **options) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "tiff")
    return stream.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A few bytes that unpack to a picture of this size."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


TABLES["test_a_bad_image_file_is_named"] = [
    ("text", b"hello, world\n", "cannot identify image file"),
    ("web page", b"<!DOCTYPE html><html>404</html>", "cannot identify image file"),
    ("nothing", b"", "cannot identify image file"),
    ("zeros", bytes(5000), "cannot identify image file"),
    ("array", b"\x93NUMPY\x01\x00" + bytes(100), "cannot identify image file"),
    ("PNG cut at its signature", encoded()[:8], "cannot"),
    ("PNG cut in its header", encoded()[:20], "cannot"),
    ("PNG cut in its pixels", encoded()[:150], "cannot be read"),
    ("PNG with a broken checksum", encoded()[:20] + b"\xff" + encoded()[21:], "cannot be read"),
    ("PNG without pixels", encoded()[:33] + b"\0\0\0\0IEND\xaeB`\x82", "cannot be read"),
    ("PNG that lacks most rows", png_of(1000, 1000), "cannot be read"),
    ("JPEG cut in half", encoded("jpeg")[:200], "cannot be read"),
    ("TIFF cut in half", encoded("tiff")[:100], "cannot be read"),
    ("BMP cut in half", encoded("bmp")[:150], "cannot be read"),
    ("WebP cut in half", encoded("webp")[:30], "cannot be read"),
    ("decompression bomb", png_of(30_000, 30_000), "decompression bomb"),
    ("wide decompression bomb", png_of(2 ** 31 - 1, 1), "cannot be read"),
    ("floats", tiff(np.ones((3, 3), np.float32)), "floating-point pixels have no known white: convert it to 8 or 16"),
    ("floats that are NaN", tiff(np.full((3, 3), np.nan, np.float32)), "floating-point pixels"),
    ("negative values", tiff(np.full((3, 3), -5, np.int32)), "outside 0..65535"),
    ("values beyond 16 bits", tiff(np.full((3, 3), 70_000, np.int32)), "outside 0..65535"),
]


@table
def test_a_bad_image_file_is_named(tmp_path, bad, message):
    file = tmp_path / "bad.png"
    file.write_bytes(bad)
    with pytest.raises(data.DataError, match=message) as error:
        data.load_image(file, 8)
    assert str(error.value).startswith(f"{file}: cannot be read as an "
                                       "image") and "replace or remove it" in str(error.value)


@pytest.mark.parametrize("content",
                         [encoded("jpeg"), encoded("jpeg", "CMYK"), encoded("png", "P"), encoded("png", "LA"),
                          encoded("png", "1"), encoded("tiff", "RGBA"), encoded("gif", "P"), encoded("bmp", "L"),
                                     tiff(np.full((3, 3), 900, np.uint16))],
                         ids=["jpeg", "cmyk", "palette", "grey with alpha", "bits", "rgba tiff", "gif", "grey bmp",
                              "16-bit tiff"])
def test_a_whole_image_is_read_whatever_its_suffix_says(tmp_path, content):
    (tmp_path / "image.png").write_bytes(content)
    with Image.open(io.BytesIO(content)) as image:
        is_deep, size = image.mode.startswith("I"), image.width
        pixels = np.asarray(image)[..., None] / 65535 if is_deep else np.asarray(image.convert("RGB")) / 255
    found = data.load_image(tmp_path / "image.png", size).permute(1, 2, 0).numpy()
    assert np.allclose(found, np.broadcast_to(2 * pixels - 1, found.shape), atol=1e-6)


# ---- layouts ----


def replaced(path: str, content: bytes):
    return lambda root: (root / path).write_bytes(content)


def without(path: str):
    return lambda root: (root / path).unlink()


def beside(path: str, name):
    """One more file in the folder of `path`, called `name`, which may be bytes that are no text."""
    def add(root):
        folder = os.fsencode((root / path).parent)
        with open(os.path.join(folder, os.fsencode(name)), "wb") as stream:
            stream.write((root / path).read_bytes())
    return add


def moved(path: str, target: str):
    return lambda root: ((root / target).parent.mkdir(parents=True, exist_ok=True), (root / path).rename(root / target))


TRAIN, BAD, MASK = "bottle/train/good/000.png", "bottle/test/hole/000.png", "bottle/ground_truth/hole/000.png"
TABLES["test_a_bad_layout_is_refused_with_names"] = [
    ("empty image", replaced(TRAIN, b""), r"train/good/000\.png: empty file \(0 bytes\)"),
    ("empty mask", replaced(MASK, b""), r"ground_truth/hole/000\.png: empty file"),
    ("missing mask", without(MASK), r"test/hole/000\.png: no mask 000\.\*"),
    ("mask too many", without(BAD), r"ground_truth/hole/000\.png: mask without an image"),
    ("two of one name", beside(TRAIN, "000.jpg"), "000.png: same name as 000.jpg"),
    ("two masks of one name", beside(MASK, "000.bmp"), "000.png: same name as 000.bmp"),
    ("line break in a name", beside(TRAIN, "a\nb.png"), r"train/good: 'a\\nb\.png' has characters"),
    ("escape in a name", beside(TRAIN, "\x1b[2J.png"), r"train/good: '\\x1b\[2J\.png' has characters"),
    ("name that is no text", beside(TRAIN, b"\xff.png"), r"train/good: '\\udcff\.png' has characters"),
    ("line break in a mask's name", beside(MASK, "a\rb.png"), r"ground_truth/hole: 'a\\rb\.png' has characters"),
    ("link to nowhere", lambda root: (root / "bottle/test/good/9.png").symlink_to("gone.png"),
     r"test/good/9\.png: file not found"),
    ("link to itself", lambda root: (root / "bottle/test/good/9.png").symlink_to("9.png"),
     r"test/good/9\.png: file not found"),
    ("masks elsewhere", moved("bottle/ground_truth", "bottle/truth"), "ground_truth/hole: folder not found"),
    ("masks without images", moved("bottle/test/hole", "elsewhere/hole"), "test/hole: folder not found"),
    ("no normal test images", moved("bottle/test/good", "elsewhere/good"), "test/good: folder not found"),
    ("no anomalous images",
     lambda root: [moved(f"bottle/{part}/hole", f"elsewhere/{part}")(root) for part in ("test", "ground_truth")],
     "bottle/test: no folder of anomalous images"),
    ("no training images", lambda root: [path.unlink() for path in (root / "bottle/train/good").iterdir()],
     "train/good: no images in it"),
    ("no training folder", moved("bottle/train", "bottle/training"), "mvtec not found: no <category>/train/good"),
    ("folder called as an image",
     lambda root: [(root / TRAIN).unlink(), (root / TRAIN).mkdir(),
                   *map(os.unlink, (root / "bottle/train/good").glob("*[12].png"))],
     "train/good: no images in it"),
]


@table
def test_a_bad_layout_is_refused_with_names(tmp_path, bad, message):
    draw_folders(tmp_path / "bottle", "good", ["hole"])
    bad(tmp_path)
    with pytest.raises(data.DataError, match=message):
        data.load("mvtec", tmp_path, "bottle")


TABLES["test_what_only_decoding_shows_is_found_by_check"] = [
    ("mask of another size", lambda root: Image.new("L", (9, 9), 255).save(root / MASK),
     r"000\.png: \(9, 9\) pixels, image \(24, 24\)"),
    ("empty mask", lambda root: draw_mask(root / MASK, 0), r"000\.png: empty mask of an anomalous image"),
    ("image cut off", replaced(TRAIN, encoded(size=(24, 24))[:99]), r"000\.png: cannot be read"),
    ("mask that is text", replaced(MASK, b"mask"), r"000\.png: cannot be read"),
    ("mask of floats is empty", lambda root: Image.fromarray(np.full((SIZE, SIZE), np.nan,
                                                                     np.float32)).save(root / MASK, "tiff"),
     "empty mask"),
    ("tested with what is trained on",
     lambda root: (root / "bottle/test/good/000.png").write_bytes((root / TRAIN).read_bytes()),
     r"test/good/000\.png: the same image as .*train/good/000\.png"),
]


@table
def test_what_only_decoding_shows_is_found_by_check(tmp_path, bad, message, capsys):
    draw_folders(tmp_path / "bottle", "good", ["hole"])
    for place, seed in (("good", 50), ("hole", 60)):
        for i in range(2):
            draw(tmp_path / f"bottle/test/{place}/00{i}.png", seed=seed + i)
    assert cli.main(["check", "--dataset", "mvtec", "--data-root", str(tmp_path)]) == 0
    bad(tmp_path)
    assert cli.main(["check", "--dataset", "mvtec", "--data-root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "1 problems:" in said
    assert re.search(message, said)


def visa_list(text):
    return lambda root: (root / "split_csv/1cls.csv").write_bytes(text)


HEADER = b"object,split,label,image,mask\n"
TABLES["test_a_bad_list_of_visa_is_refused"] = [
    ("not text", visa_list(b"\xff\xfe\x00\x81"), "not a CSV file in UTF-8"),
    ("nothing", visa_list(b""), "no image, label, mask, object, split"),
    ("other columns", visa_list(b"a,b\n1,2\n"), "no image, label"),
    ("no row", visa_list(HEADER), "no category in it has a folder"),
    ("other category", visa_list(HEADER + b"pcb9,train,normal,x.JPG,\n"), "no category in it has a folder"),
    ("short row", visa_list(HEADER + b"pcb1,train\n"), "split and label are not one of"),
    ("image that isn't there", visa_list(HEADER + b"pcb1,train,normal,gone.JPG,\n"), "gone.JPG: file not found"),
    ("path that leaves", visa_list(HEADER + b"pcb1,train,normal,../x.JPG,\n"), "is not a path inside"),
    ("path with a line break", visa_list(HEADER + b'pcb1,train,normal,"a\nb.JPG",\n'), "is not a path inside"),
    ("path with a zero", visa_list(HEADER + b"pcb1,train,normal,a\0b.JPG,\n"),
     "is not a path inside|line contains NUL"),
]


@table
def test_a_bad_list_of_visa_is_refused(tmp_path, bad, message):
    bad(draw_visa(tmp_path))
    with pytest.raises(data.DataError, match=message):
        data.load("visa", tmp_path, "pcb1")


def test_names_of_any_script_and_with_quotes_are_read(tmp_path):
    root = draw_folders(tmp_path / "bottle", "good", ["hole"])
    for name in ("two words.png", "it's \"quoted\".png", "<b>&amp;.png", "部品.png", "قطعة.png", "деталь №1.png",
                 "🔩.png", "a;b,c.png", "%s {x}.png", "-rf.png"):
        beside("train/good/000.png", name)(root)
    assert len(data.load("mvtec", tmp_path).train) == 13


def test_tiles_need_their_numbers_only_where_they_are_split_by_tile(tmp_path):
    root = draw_tiles(tmp_path)
    draw(root / "MT_Free/Imgs/holiday.jpg", "L")
    assert data.load("mtd", root).train
    with pytest.raises(data.DataError, match="holiday.jpg: not named exp<N>_num_<id>"):
        data.load("mtd", root, split="by_tile")
