"""Tables of bad inputs, each with what is said about it: files, layouts, settings, commands, tensors, arguments of
metrics.

What a saved detector's folder may do wrong is in test_hostile_models.py; see also test_data_problems.py and
test_config.py.
"""
import io
import os
import re
import struct
import zlib
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from tiny_datasets import SIZE, draw, draw_folders, draw_mask, draw_tiles, draw_visa

from d3ad import D3AD, Config, data
from d3ad.app import cli
from d3ad.app.part import split_off
from d3ad.calibration import threshold_for
from d3ad.conditioning import DynamicConditioning
from d3ad.diffusion import alpha_bar, reconstruct
from d3ad.maps import anomaly_map
from d3ad.metrics import image_auroc, pixel_auroc, pro, pro_200
from d3ad.speed import presets
from d3ad.study import runner
from d3ad.study.settings import Study
from d3ad.study.workspace import open_workspace, train

TABLES = {}


def table(test):
    """Parametrise a test with the rows of its table, each a name, what is bad, and what is said."""
    rows = TABLES[test.__name__]
    return pytest.mark.parametrize("bad, message", [row[1:] for row in rows], ids=[row[0] for row in rows])(test)


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
    ("floats", tiff(np.ones((3, 3), np.float32)), "floating-point pixels"),
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
    assert data.load_image(tmp_path / "image.png", 8).abs().max() <= 1


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


# ---- settings ----

TABLES["test_a_bad_setting_is_named"] = [
    (f"{name} = {value!r}", {name: value}, message) for name, value, message in [
        ("k", 0, "k must lie in"), ("k", -3, "k must lie in"), ("k", 1.5, "k must be of type int"),
        ("k", None, "k must be of type int"),
        ("k", 10 ** 30, "k must lie in"), ("k", [20], "k must be of type int"),
        ("k", {"a": 1}, "k must be of type int"),
        ("omega", -0.1, "omega must lie"), ("omega", float("inf"), "omega must lie"),
        ("omega", "half", "omega must be of type float"),
        ("dynamic", 1, "dynamic must be of type bool"), ("dynamic", "yes", "dynamic must be of type bool"),
        ("spacing", "even", "one of trailing, leading"), ("device", "tpu", "device must be one of"),
        ("normalisation", "none", "normalisation must be one of"),
        ("image_size", 8, "image_size must lie"), ("image_size", 10 ** 6, "image_size must lie"),
        ("image_size", 60, "multiples of 8"),
        ("image_size", 72, "halved often enough"), ("crop_size", 12, "multiples of 8"), ("crop_size", 264, "crop_size"),
        ("t_max", 1001, r"t_max \(1001\) and train_t_max"), ("num_timesteps", 50, "can't exceed num_timesteps"),
        ("train_t_max", 79, "wouldn't know it"),
        ("beta_start", 0.5, "exceeds beta_end"), ("beta_start", 0.0, "beta_start must lie"),
        ("beta_end", 1.0, "beta_end must lie"),
        ("num_bins", 1, "min_bin"), ("min_bin", 99, "exceeds num_bins"), ("num_steps", 0, "num_steps must lie"),
        ("map_blocks", [0], "map_blocks must lie"), ("map_blocks", "23", "must be a list of int"),
        ("map_blocks", [True], "must be a list of int"),
        ("map_blocks", [], "map_blocks"), ("adapt_blocks", [], "adapt_blocks"), ("dic_block", 4, "dic_block must lie"),
        ("unet_channels", [24, 48], "multiples of 16"), ("unet_channels", [], "multiples of 16"),
        ("unet_attention", [7], "doesn't have"),
        ("threshold_quantile", 0.2, "threshold_quantile must lie"), ("learning_rate", 0, "learning_rate must lie"),
        ("sigma", -1.0, "sigma must lie"), ("batch_size", 0, "batch_size must lie"), ("seed", -1, "seed must lie"),
        ("Omega", 0.5, "unknown setting 'Omega'"),
    ]]


@table
def test_a_bad_setting_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Config.profile("visa", **bad)


TABLES["test_a_bad_setting_of_a_study_is_named"] = [
    (f"{name} = {value!r}", {name: value}, message) for name, value, message in [
        ("source", "web", "source must be one of"), ("split", "by_day", "split must be one of"),
        ("datasets", "visa", "must be a list of str"), ("datasets", [1], "must be a list of str"),
        ("counts", [1, 2, 3, 4], "three numbers"), ("seeds", 0, "seeds must lie"),
        ("Seeds", 1, "unknown setting 'Seeds'")]]


@table
def test_a_bad_setting_of_a_study_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Study.profile("visa", **bad)


# ---- commands ----

TABLES["test_a_bad_command_is_one_line"] = [
    ("no folder", "fit --out m", "give --dataset and --data-root, or a folder"),
    ("nowhere", "fit nowhere --out m", "not a folder"),
    ("a file", "fit file.txt --out m", "not a folder"),
    ("no image", "fit empty --out m", "images not found"),
    ("unknown dataset", "fit --dataset imagenet --data-root . --out m", "unknown dataset 'imagenet'"),
    ("unknown setting", "fit good --out m --set omegaa=1", "unknown setting 'omegaa'"),
    ("setting without a value", "fit good --out m --set omega", "omega must be of type float"),
    ("setting of another type", "fit good --out m --set k=many", "k must be of type int"),
    ("setting out of range", "fit good --out m --set k=0", "k must lie"),
    ("settings that exclude each other", "fit good --out m --set t_max=5000", "can't exceed num_timesteps"),
    ("size that can't be divided", "fit good --out m --set image_size=100", "multiples of 8"),
    ("k beyond the training set", "fit good --out m --profile smoke --set k=3",
     "2 training images are too few for k = 3"),
    ("one image", "fit one --out m --profile smoke", "1 good image can't be divided"),
    ("out is not a detector", "fit good --out good", "is not a saved detector, so it is not replaced"),
    ("out is a file", "fit good --out file.txt", "is not a saved detector, so it is not replaced"),
    ("out below a file", "fit good --out file.txt/m --profile smoke --set k=1", "Not a directory"),
    ("no model", "predict nowhere good --out o", "config.json is missing"),
    ("model is a file", "predict file.txt good --out o", "config.json is missing"),
    ("model is no model", "predict good good --out o", "config.json is missing"),
    ("evaluate no model", "evaluate good --dataset mvtec --data-root .", "config.json is missing"),
    ("check nowhere", "check nowhere", "not a folder"),
    ("check nothing", "check", "give --dataset and --data-root, or a folder"),
    ("check a wrong root", "check --dataset mtd --data-root good", "mtd not found"),
    ("drawn too small", "synthesize s --size 32", "size must be at least 64"),
    ("drawn nothing", "synthesize s --bad 0", "num_bad must be at least 1"),
    ("drawn of a negative seed", "synthesize s --seed -1", "seed must be at least 0"),
    ("drawn of an unknown kind", "synthesize s --only zipper", "unknown category 'zipper'"),
    ("drawn into a file", "synthesize file.txt --only weave --train 1 --good 1 --bad 1 --size 64", "Not a directory"),
    ("no command", "", "COMMAND"), ("unknown command", "train", "invalid choice"),
    ("unknown option", "fit good --out m --epochs 3", "--epochs"),
    ("unknown profile", "fit good --out m --profile tiny", "invalid choice"),
    ("number that is none", "synthesize s --size big", "invalid int"),
    ("nothing held out", "fit good --out m --held-out 0", "must lie above 0"),
    ("most held out", "fit good --out m --held-out 0.9", "at most at 0.5"),
    ("rate that is no number", "fit good --out m --false-alarms nan", "must lie above 0"),
    ("unknown normalisation", "evaluate m --normalisation max", "invalid choice"),
]


@table
def test_a_bad_command_is_one_line(tmp_path, monkeypatch, capsys, bad, message):
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        draw(tmp_path / f"good/{i}.png", seed=i)
    draw(tmp_path / "one/1.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    before = sorted(tmp_path.rglob("*"))
    try:
        code = cli.main(bad.split())
    except SystemExit as stop:  # argparse
        code = stop.code
    said = capsys.readouterr().err
    assert code == 2 and message in said and len(said.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before  # nothing begun is left


NOTEBOOK = 'profile: str = "demo"\ndata_root: str = ""\nout: str = ""'
TABLES["test_a_bad_run_is_one_line"] = [
    ("unknown option", "--fast", "--fast"), ("abbreviated option", "--prof demo", "--prof"),
    ("no value", "--out", "--out"),
    ("unknown profile", "--profile tiny", "unknown profile 'tiny'"),
    ("empty profile", "--profile=", "unknown profile ''"),
    ("unknown notebook", "--only 42", "no notebook 42"), ("no number", "--only first", "no notebook first"),
    ("empty list", "--only=", "no notebook 00"),
    ("hole in a list", "--only 01,,08", "no notebook 00"), ("out is a file", "--out file.txt", "is not a folder"),
    ("empty out", "--out=", "is not a folder"),
    ("data root is a file", "--data-root file.txt", "is not a folder"),
    ("real data without a root", "--profile mvtec", "--data-root"),
    ("root without the dataset", "--profile btad --data-root empty", "btad not found"),
    ("clean what is no notebook", "--normalise file.txt", "is not a notebook"),
    ("clean what isn't there", "--normalise gone.ipynb", "gone.ipynb"),
    ("notebooks of another profile", "--update-notebooks --profile smoke",
     "--update-notebooks goes with the demo profile"),
]


@table
def test_a_bad_run_is_one_line(tmp_path, monkeypatch, capsys, bad, message):
    monkeypatch.chdir(tmp_path)
    for name in ("D3AD_PROFILE", "D3AD_DATA_ROOT", "D3AD_OUT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    assert runner.main(bad.split()) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""


def test_all_problems_of_all_categories_are_said_before_the_run(tmp_path):
    for category in ("01", "02", "03"):
        draw_folders(tmp_path / category, "ok", ["ko"])
    (tmp_path / "01/train/ok/000.png").write_bytes(b"")
    (tmp_path / "03/ground_truth/ko/001.png").unlink()
    with pytest.raises(runner.UsageError) as error:
        runner.check_data("btad", Study.profile("btad"), tmp_path)
    assert "01/train/ok/000.png: empty file" in str(error.value) and "03/test/ko/001.png: no mask" in str(error.value)


def test_unreadable_test_images_are_said_before_the_training(tmp_path):
    for category in ("01", "02"):
        draw_folders(tmp_path / category, "ok", ["ko"])
        (tmp_path / category / "test/ko/001.png").write_bytes(b"no image")
    workspace = open_workspace("btad", str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(data.DataError) as error:
        train([workspace.run("btad", category) for category in ("01", "02")])
    named = [line.split(": ")[0] for line in str(error.value).splitlines()]
    assert named == [f"{tmp_path}/0{i}/test/ko/001.png" for i in (1, 2)]


@pytest.mark.parametrize("lacking, message", [("data_root", "no data_root"), ("profile", "no profile")])
def test_a_notebook_without_a_parameter_is_refused(tmp_path, lacking, message):
    lines = [line for line in NOTEBOOK.splitlines() if not line.startswith(lacking)]
    cell = nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": runner.KERNELSPEC}),
                   tmp_path / "01_made.ipynb")
    with pytest.raises(runner.UsageError, match=message):
        runner.check_parameters(tmp_path / "01_made.ipynb", dict(profile="", data_root="", out=""))


@pytest.mark.parametrize("tried, message",
                         [("t_max=40", "D3AD_SET must be JSON"), ('{"tmax": 40}', "unknown setting 'tmax'"),
                          ("[1]", "D3AD_SET must be JSON")])
def test_settings_to_try_are_checked(monkeypatch, tried, message):
    monkeypatch.setenv("D3AD_SET", tried)
    with pytest.raises(ValueError, match=message):
        open_workspace("smoke")


# ---- tensors ----

GOOD = torch.zeros(4, 3, 64, 64)
TABLES["test_bad_images_are_refused_by_fit_and_predict"] = [
    ("no batch", torch.zeros(3, 64, 64), r"got a Tensor \(3, 64, 64\)"),
    ("no image", torch.zeros(0, 3, 64, 64), r"got a Tensor \(0, 3"),
    ("grey", torch.zeros(2, 1, 64, 64), r"got a Tensor \(2, 1"),
    ("channels last", torch.zeros(2, 64, 64, 3), r"got a Tensor \(2, 64"),
    ("no pixels", torch.zeros(2, 3, 0, 0), r"got a Tensor \(2, 3, 0, 0\)"),
    ("video", torch.zeros(1, 2, 3, 8, 8), "got a Tensor"),
    ("array", np.zeros((2, 3, 8, 8), np.float32), "got ndarray"), ("list", [GOOD[0]], "got list"),
    ("None", None, "got NoneType"), ("NaN", torch.full((1, 3, 8, 8), float("nan")), "must be finite"),
    ("infinite", torch.full((1, 3, 8, 8), float("inf")), "must be finite"),
    ("bytes", torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), r"lie in \[-1, 1\]"),
    ("complex", torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "real"),
]


@table
def test_bad_images_are_refused_by_fit_and_predict(fitted, tiny, bad, message):
    for use in (fitted.predict, D3AD(tiny).fit, fitted.set_threshold):
        with pytest.raises(ValueError, match=message):
            use(bad)


def test_k_must_not_exceed_the_training_set(tiny, images):
    with pytest.raises(ValueError,
                       match="10 training images are too few for k = 11 neighbours: give at least 11, or lower k"):
        D3AD(tiny.replace(k=11)).fit(images)
    with pytest.raises(ValueError, match="give at least 11"):
        D3AD(tiny.replace(k=10, include_self=False)).fit(images)


ABAR = alpha_bar()
FEATURES = torch.rand(6, 4)
TABLES["test_bad_arguments_are_refused"] = [
    ("beta of zero", lambda: alpha_bar(0.0, 0.1), "beta"), ("falling beta", lambda: alpha_bar(0.2, 0.1), "beta"),
    ("no step", lambda: alpha_bar(num_timesteps=0), "num_timesteps"),
    ("start beyond T", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 1001), ABAR), "t_hat"),
    ("start below 0", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), -1), ABAR), "t_hat"),
    ("steps of other images", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((3,), 10), ABAR),
     r"a Tensor \(4,\), one for each image"),
    ("no steps", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 10), ABAR, num_steps=0), "num_steps"),
    ("unknown spacing", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 10), ABAR, spacing="even"),
     "spacing"),
    ("k of zero", lambda: DynamicConditioning(k=0), "k must be at least 1"),
    ("min_bin beyond the bins", lambda: DynamicConditioning(min_bin=11), "min_bin"),
    ("too few features", lambda: DynamicConditioning(k=7).fit(FEATURES), "k = 7 neighbours need"),
    ("features that are NaN", lambda: DynamicConditioning(k=2).fit(FEATURES * float("nan")), "finite"),
    ("features of other shape", lambda: DynamicConditioning(k=2).fit(FEATURES[0]), "k = 2 neighbours need"),
    ("weight beyond 1", lambda: anomaly_map(GOOD[:, 0], GOOD[:, 0], weight=1.5), "weight"),
    ("maps that differ", lambda: anomaly_map(GOOD[:, 0], GOOD[:2, 0]), "shape"),
    ("no score for a threshold", lambda: threshold_for([]), "at least one good image"),
    ("NaN for a threshold", lambda: threshold_for([0.1, np.nan]), "finite scores"),
    ("rate beyond a half", lambda: threshold_for([0.1], 0.6), "false_alarm_rate"),
    ("nothing to split", lambda: split_off(GOOD[:1], 0.2, 0), "1 good image"),
    ("unknown normalisation", lambda: data.load("folder", ".", shuffle=True), "unknown option shuffle"),
]


@table
def test_bad_arguments_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


# ---- metrics ----

MAPS, MASKS = np.arange(8.0).reshape(2, 2, 2), np.array([[[0, 0], [0, 1]], [[0, 0], [0, 0]]])
TABLES["test_metrics_refuse_what_has_no_answer"] = [
    ("NaN score", (MAPS * np.nan, MASKS), "8 (image|pixel) scores are NaN or infinite"),
    ("infinite score", (np.where(MAPS == 3, np.inf, MAPS), MASKS), "1 (image|pixel) scores"),
    ("all normal", (MAPS, MASKS * 0), "all are normal"), ("all anomalous", (MAPS, MASKS * 0 + 1), "all are anomalous"),
    ("other shape", (MAPS, MASKS[:1]), "differ in shape"),
    ("nothing", (MAPS[:0], MASKS[:0]), "both normal and anomalous"),
    ("NaN label", (MAPS, MASKS * np.nan), "labels must be"), ("negative label", (MAPS, MASKS - 1), "labels must be"),
    ("torch, NaN score", (torch.full((2, 2, 2), float("nan")), torch.tensor(MASKS)), "8 (image|pixel) scores"),
]


@table
def test_metrics_refuse_what_has_no_answer(bad, message):
    for metric in (image_auroc, pixel_auroc, pro, pro_200):
        with pytest.raises(ValueError, match=message):
            metric(*bad)


@pytest.mark.parametrize("bad, message",
                         [(dict(fpr_limit=0), "fpr_limit"), (dict(fpr_limit=float("nan")), "fpr_limit"),
                          (dict(area=(0.9, 1)), "no region")])
def test_pro_refuses_bad_options(bad, message):
    with pytest.raises(ValueError, match=message):
        pro(MAPS, MASKS, **bad)


def test_evaluate_needs_both_kinds_of_test_images(monkeypatch, tmp_path, capsys):
    draw(tmp_path / "0.png")
    monkeypatch.setattr(presets, "load", lambda folder: SimpleNamespace(config=Config.profile("smoke")))
    assert cli.main(["evaluate", "model", "--dataset", "folder", "--data-root", str(tmp_path)]) == 2
    assert "metrics need both good and anomalous test images" in capsys.readouterr().err


def test_there_are_many_bad_inputs():
    assert sum(map(len, TABLES.values())) >= 150
