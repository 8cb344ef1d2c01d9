"""Photographs of one's own: every file is accounted for, in the photograph's size, in portions, and after any kill."""
import io
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
import torch
from brightness import Brightness
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d3ad import data
from d3ad.app import cli, judging, report, watch
from d3ad.data import names, tree
from d3ad.speed import presets


def photograph(path: Path, size=(20, 10), value=None, **options) -> Path:
    """A file of noise, or of one grey value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).integers(0, 128, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise if value is None else np.full_like(noise, value)).save(path, **options)
    return path


@pytest.fixture()
def loaded(monkeypatch):
    """The command line finds a `Brightness` in place of any model."""
    detector = Brightness()
    monkeypatch.setattr(presets, "load", lambda folder, device="auto": detector)
    monkeypatch.setattr(presets, "apply", lambda detector, name: detector)
    return detector


# ---- names and folders ----

@pytest.mark.parametrize("meant, called", {
    "good": "good Good OK ok normal NORMAL train_good Pass i.O.",
    "good test": "good_test test-good OK_Test normal.test",
    "defect": "NG nok bad not_good n.i.O. test_bad Anomaly",
    "mask": "gt Masks ground_truth masks_crack crack_mask Ground-Truth",
    "unclear": "good2 images old_good labels ok_parts", "test": "test VAL validation", "train": "train Training",
    "group": "2024-01-02 cam1 shift_2 early KW12 100CANON A", "system": ".git @eaDir __MACOSX Thumbs.db ._a.png ~$x",
    "other": "crack Kratzer broken_large dent scratch_neck"}.items())
def test_a_name_means_one_thing(meant, called):
    assert {name: names.meaning(name) for name in called.split()} == dict.fromkeys(called.split(), meant)


def test_names_are_compared_composed_or_not():
    assert names.normalised("Pru\u0308fung") == names.normalised("PRÜFUNG") and names.meaning("Fru\u0308h") == "group"


def test_a_folder_is_read_as_its_note_says(tmp_path):
    for name in ("Good/cam1/1.png", "Good/cam2/1.png", "good_test/9.png", "crack/a.png", "crack/b.png", "gt/a.png",
                 "gt/b_mask.png", "@eaDir/x.png"):
        photograph(tmp_path / name)
    (tmp_path / "Good/Thumbs.db").write_bytes(b"cache")
    dataset = data.load("folder", tmp_path)
    assert dataset.notes == ("2 good from Good, 2 defects from crack, 1 good (test) from good_test, 2 masks from gt; "
                             "not used: @eaDir, Good/Thumbs.db",)
    assert [s.image.parent.name for s in dataset.train] == ["cam1", "cam2"]
    assert dataset.labels("test").tolist() == [0, 1, 1]
    assert [s.mask.name for s in dataset.test if s.label] == ["a.png", "b_mask.png"]
    assert {str(left.path.relative_to(tmp_path)) for left in dataset.left_out} == {"Good/Thumbs.db", "@eaDir/x.png"}


@pytest.mark.parametrize("files, options, said", [
    (["good/1.png", "good2/1.png"], {}, "say --good good2 or --defects good2"),
    (["good/1.png", "2024-01-02/1.png"], {}, "--defects 2024-01-02"),
    (["good/1.png", "2.png"], {}, "1 images directly in it, beside the folder good"),
    (["crack/1.png", "dent/1.png"], {}, "--good NAME, or --good . for all"),
    (["good/1.png", "ok/1.png"], {}, "good beside good"),
    (["train/good/1.png", "test/hole/1.png"], {}, "in the layout of MVTec AD; give"),
    (["good/1.png"], {"defects": "gone"}, "no folder 'gone' in it"),
    (["good/NG/1.png", "good/2.png"], {}, "with the other kind in a folder inside"),
    (["good/1.png", "crack/a/1.png", "crack/b/1.png", "masks/crack/1.png"], {}, "the same mask as"),
])
def test_what_is_ambiguous_is_asked_for(tmp_path, files, options, said):
    for name in files:
        photograph(tmp_path / name)
    with pytest.raises(data.DataError) as error:
        data.load("folder", tmp_path, **options)
    assert said in str(error.value)


def test_an_answer_settles_it(tmp_path):
    for name in ("good2/1.png", "validation/1.png", "truth/1.png"):
        photograph(tmp_path / name)
    dataset = data.load("folder", tmp_path, good=["good2"], defects="validation", masks="truth")
    assert dataset.test[-1].defect == "validation" and dataset.test[-1].mask.parent.name == "truth"
    for name in ("crack", "dent"):
        photograph(tmp_path / "parts" / name / "1.png")
    assert len(data.load("folder", tmp_path / "parts", good="crack", defects="dent").train) == 1


parts = st.sampled_from(["good", "OK", "gt", "masks", "2024-01-02", "cam 1", "@eaDir", ".git", "crack", "a", "é"])
files = st.sampled_from(["1.png", "1_mask.png", "2.JPG", "x", "notes.txt", "Thumbs.db", "i.heic", ".hidden.png",
                         "empty.png", "pages.tif", "bad.png", "a\nb.png", "deep.png"])


def content(name: str) -> bytes:
    stream = io.BytesIO()
    picture = Image.new("L", (6, 5), 90)
    if name in ("notes.txt", "Thumbs.db", "i.heic", "bad.png"):
        return b"no picture"
    if name == "empty.png":
        return b""
    if name == "pages.tif":
        picture.save(stream, "tiff", save_all=True, append_images=[picture])
    elif name == "deep.png":
        Image.fromarray(np.full((5, 6), 3000, np.uint16)).save(stream, "png")
    else:
        picture.save(stream, "jpeg" if name == "2.JPG" else "png")
    return stream.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.lists(parts, max_size=3), files), min_size=1, max_size=12))
def test_every_file_is_judged_or_a_mask_or_listed(found):
    with TemporaryDirectory() as folder:
        root, out = Path(folder, "parts"), Path(folder, "out")
        for place, name in found:
            root.joinpath(*place).mkdir(parents=True, exist_ok=True)
            root.joinpath(*place, name).write_bytes(content(name))
        entries = tree.collect([root])
        summary = judging.judge(Brightness(size=16), entries, out, 0.6, "")
        table = pd.read_csv(out / "scores.csv", keep_default_na=False)
        judged = table.loc[table["state"] == "judged", "path"].tolist()
        masks, listed = [e.name for e in entries if e.kind == "mask"], [e.name for e in summary.left_out]
        assert sorted(judged + masks + listed) == sorted(p.relative_to(root).as_posix() for p in root.rglob("*")
                                                         if p.is_file())
        assert sorted(listed) == sorted(table.loc[table["state"] != "judged", "path"])
        assert len(judged) == summary.num_judged and all(summary.left_out[i].reason for i in range(len(listed)))


def test_a_loop_of_links_ends(tmp_path):
    photograph(tmp_path / "a/1.png")
    (tmp_path / "a/again").symlink_to(tmp_path, target_is_directory=True)
    assert [(e.name, e.kind) for e in tree.walk(tmp_path)] == [("a/1.png", "image"), ("a/again", "left out")]


# ---- what predict writes ----

def test_results_are_in_the_photographs_size_with_boxes(loaded, tmp_path, capsys):
    pixels = np.zeros((90, 160, 3), np.uint8)
    pixels[20:50, 100:140] = 255
    (tmp_path / "p").mkdir()
    Image.fromarray(pixels).save(tmp_path / "p/wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "p/turned.jpg", exif=exif)
    assert cli.main(["predict", "m", str(tmp_path / "p"), "--out", str(tmp_path / "out"), "--coco", "--threshold",
                     "0.6"]) == 0
    table = pd.read_csv(tmp_path / "out/scores.csv").set_index("path")
    assert table.loc["wide.png", ["width", "height"]].tolist() == [160, 90]
    assert table.loc["turned.jpg", ["width", "height"]].tolist() == [90, 160]
    (x, y, width, height, area, score), = json.loads(table.loc["wide.png", "boxes"])
    assert abs(x - 100) < 10 and abs(y - 20) < 6 and abs(width - 40) < 20 and abs(height - 30) < 12
    assert 0.6 < score <= 1 and area <= width * height
    sizes = {path.parent.name: Image.open(path).size for path in (tmp_path / "out").rglob("*_wide.png")}
    assert sizes == dict.fromkeys(("heat_maps", "overlays", "masks"), (160, 90))
    coco = json.loads((tmp_path / "out/coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["turned.jpg", "wide.png"]
    assert coco["annotations"][1]["bbox"] == [x, y, width, height]


def test_a_flagged_photograph_has_a_marked_pixel_whatever_its_size():
    anomaly_map = torch.zeros(16, 16)
    anomaly_map[5, 9] = 1.0
    for size in ((3, 2), (16, 16), (17, 31), (500, 40), (4, 300)):
        above = report.above_threshold(anomaly_map, 0.999, size)
        assert above.shape == size[::-1] and above.any()
        assert report.boxes(above, anomaly_map)[0][5] == 1.0


def test_out_is_emptied_of_what_a_run_wrote_and_of_nothing_else(loaded, tmp_path):
    out = tmp_path / "out"
    for name in ("a", "b"):
        photograph(tmp_path / "monday" / f"{name}.png")
    photograph(tmp_path / "tuesday/z.png")
    assert cli.main(["predict", "m", str(tmp_path / "monday"), "--out", str(out), "--raw"]) == 0
    (out / "heat_maps/mine.png").write_bytes(b"mine")
    (out / "notes.txt").write_text("mine")
    with (out / ".d3ad/written.txt").open("a") as record:
        record.write("../monday/a.png\n/etc/hostname\n")  # not names that a run writes down
    assert cli.main(["predict", "m", str(tmp_path / "tuesday"), "--out", str(out)]) == 0
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()
                  and ".d3ad" not in path.parts)
    assert left == ["heat_maps/0000_z.png", "heat_maps/mine.png", "masks/0000_z.png", "notes.txt",
                    "overlays/0000_z.png", "report.html", "scores.csv"]
    assert (tmp_path / "monday/a.png").exists()


def test_what_is_left_out_is_named_and_changes_the_exit_code(loaded, tmp_path, capsys):
    photograph(tmp_path / "p/day 1/a.png")
    (tmp_path / "p/Thumbs.db").write_bytes(b"x")
    assert cli.main(["predict", "m", str(tmp_path / "p"), "--out", str(tmp_path / "out")]) == 0  # nothing was lost
    assert "left out: Thumbs.db: hidden" in capsys.readouterr().err
    (tmp_path / "p/b.png").write_bytes(b"damaged")
    photograph(tmp_path / "p/c.tif", save_all=True, append_images=[Image.new("RGB", (9, 9))])
    assert cli.main(["predict", "m", str(tmp_path / "p"), "--out", str(tmp_path / "out")]) == judging.LEFT_OUT == 3
    said = capsys.readouterr()
    assert "b.png: cannot be read" in said.err and "3 files left out" in said.out
    assert "c.tif: cannot be read as an image (it has 2 pages" in said.err
    page = (tmp_path / "out/report.html").read_text()
    assert all(name in page for name in ("b.png", "c.tif", "Thumbs.db"))


def test_single_images_and_a_list_are_taken(loaded, tmp_path, monkeypatch, capsys):
    one, two = photograph(tmp_path / "p/1.png"), photograph(tmp_path / "p/2 ü.png")
    assert cli.main(["predict", "m", str(one), "--out", str(tmp_path / "out")]) == 0
    assert pd.read_csv(tmp_path / "out/scores.csv")["path"].tolist() == ["1.png"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{one}\r\n{two}\n{tmp_path / 'gone.png'}\n{one}\n"))
    assert cli.main(["predict", "m", "-", "--out", str(tmp_path / "out")]) == 3
    table = pd.read_csv(tmp_path / "out/scores.csv")
    assert table["path"].tolist() == [str(one), str(two), str(tmp_path / "gone.png")]
    assert table["state"][2].startswith("left out: file not found")


# ---- thresholds ----

def test_a_threshold_is_given_or_set_on_good_ones(loaded, tmp_path, capsys):
    for i in range(9):
        photograph(tmp_path / "good" / f"{i}.png", value=10 * i)
    photograph(tmp_path / "new/a.png", value=90)
    run = ["predict", "m", str(tmp_path / "new"), "--out", str(tmp_path / "out")]
    for more, threshold, flagged in ((["--threshold", "0.5"], 0.5, False),
                                     (["--good", str(tmp_path / "good")], 80 / 255, True),
                                     (["--good", str(tmp_path / "good"), "--false-alarms", "0.5"], 40 / 255, True),
                                     ([], 0.6, False)):
        assert cli.main(run + more) == 0
        row = pd.read_csv(tmp_path / "out/scores.csv").iloc[0]
        assert row["threshold"] == pytest.approx(threshold, abs=1e-6) and bool(row["is_anomalous"]) == flagged
    photograph(tmp_path / "both/good/a.png", value=51)
    photograph(tmp_path / "both/crack/a.png", value=250)
    assert cli.main([*run, "--good", str(tmp_path / "both")]) == 0
    assert pd.read_csv(tmp_path / "out/scores.csv")["threshold"][0] == pytest.approx(0.2)
    assert cli.main([*run, "--false-alarms", "0.1"]) == 2 and "--good FOLDER" in capsys.readouterr().err
    assert cli.main([*run, "--preset", "faithful"]) == 0  # which it has
    assert cli.main([*run, "--preset", "fast"]) == 2
    assert "no threshold was set under the preset 'fast'" in capsys.readouterr().err
    assert cli.main([*run, "--preset", "fast", "--threshold", "0.5"]) == 0


def test_a_threshold_rests_on_good_images_only(fitted, tmp_path):
    for i in range(4):
        photograph(tmp_path / f"parts/good/{i}.png", value=20 * i)
    photograph(tmp_path / "parts/crack/0.png", value=255)
    import copy
    detector = copy.copy(fitted)
    assert detector.set_threshold(tmp_path / "parts").num_images == 4
    assert detector.set_threshold(data.load("folder", tmp_path / "parts")).num_images == 1  # a fifth is held back


# ---- any number ----

def test_portions_change_nothing_but_memory(tmp_path):
    for i in range(70):
        photograph(tmp_path / f"p/{i}.png", value=(7 * i) % 256)
    whole, parts = Brightness(batch=4), Brightness(batch=100)
    for detector, name in ((whole, "a"), (parts, "b")):
        judging.judge(detector, tree.collect([tmp_path / "p"]), tmp_path / name, 0.6, "")
    assert whole.largest == judging.PORTION and parts.largest == 70
    assert (tmp_path / "a/scores.csv").read_bytes() == (tmp_path / "b/scores.csv").read_bytes()


def written(out: Path) -> dict:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
            and ".d3ad" not in path.parts}


def test_kills_at_random_moments_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "PORTION", 4)
    monkeypatch.setattr(report, "MOST", 7)
    for i in range(40):
        photograph(tmp_path / f"p/{i}.png", value=(37 * i) % 256)
    (tmp_path / "p/7.png").write_bytes(b"damaged")
    entries = tree.collect([tmp_path / "p"])

    def run(out: str) -> None:
        judging.judge(Brightness(batch=2, seconds=0.01), entries, tmp_path / out, 0.6, "From good images.", coco=True,
                      key="model")

    run("whole")
    chance, context, kills = random.Random(0), multiprocessing.get_context("fork"), 0
    for _ in range(10):
        process = context.Process(target=run, args=("killed",))
        process.start()
        process.join(chance.uniform(0.02, 0.25))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    run("killed")
    assert kills >= 3 and written(tmp_path / "killed") == written(tmp_path / "whole")


def test_a_run_of_another_threshold_begins_anew(tmp_path):
    for i in range(8):
        photograph(tmp_path / f"p/{i}.png", value=30 * i)
    entries, place = tree.collect([tmp_path / "p"]), judging.Out(tmp_path / "out", 0.6)
    place.hidden.mkdir(parents=True)
    assert place.begin("one") == 0
    place.append([judging.row_of(entries[0])])
    place.reached("one", 1)
    assert place.begin("one") == 1 and len(list(place.rows())) == 1
    assert place.begin("two") == 0 and not list(place.rows())


def test_photographs_are_judged_as_they_arrive(tmp_path):
    photograph(tmp_path / "in/a.png", value=200)
    said = []

    def say(line):
        said.append(json.loads(line))
        if len(said) == 1:
            photograph(tmp_path / "in/later/b.png")
            (tmp_path / "in/c.png").write_bytes(b"half of a")

    lost = watch.watch(Brightness(), str(tmp_path / "in"), tmp_path / "out", 0.6, interval=0.01, say=say, rounds=5)
    assert [(line["path"], line["state"] == "judged") for line in said] == [("a.png", True), ("c.png", False),
                                                                            ("later/b.png", True)]
    assert lost == 1 and said[0]["is_anomalous"] is True and said[0]["boxes"][0][:4] == [0, 0, 20, 10]
    again = []
    photograph(tmp_path / "in/d.png")
    watch.watch(Brightness(), str(tmp_path / "in"), tmp_path / "out", 0.6, interval=0.01, say=again.append, rounds=3)
    assert [json.loads(line)["path"] for line in again] == ["d.png"]  # the others are known
    assert pd.read_csv(tmp_path / "out/scores.csv")["path"].tolist() == ["a.png", "c.png", "later/b.png", "d.png"]


def test_a_file_that_still_grows_is_waited_for(tmp_path):
    file, known, seen = photograph(tmp_path / "a.png"), set(), {}
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert not list(watch.arrivals(tmp_path, known, seen))
    file.write_bytes(whole)
    assert not list(watch.arrivals(tmp_path, known, seen))
    assert [entry.name for entry in watch.arrivals(tmp_path, known, seen)] == ["a.png"]


# ---- the page ----

def test_a_page_of_twenty_thousand_rows_is_written_in_seconds(tmp_path):
    rows = (dict(path=f"{i}.png", score=i / 2e4, t_hat=20, files=[f"overlays/{i}.png"]) for i in range(20_000))
    started = time.monotonic()
    report.compose_page(tmp_path / "report.html", rows, [i / 2e4 for i in range(20_000)], 0.5, "", 0)
    assert time.monotonic() - started < 10 and (tmp_path / "report.html").stat().st_size < 4e6


def test_values_on_the_page_are_on_the_right_side_of_the_threshold():
    generator = torch.Generator().manual_seed(0)
    anomaly_map = torch.rand(64, 64, generator=generator)
    anomaly_map[0, 0] = 5000.0
    threshold = float(anomaly_map[3, 3])
    item = report.item_of(Image.new("RGB", (64, 64)), anomaly_map, torch.zeros(3, 64, 64), threshold)
    import base64
    steps = np.frombuffer(base64.b64decode(item["values"]), "<u2").reshape(item["values_shape"])
    low, high = item["values_range"]
    assert ((steps / 65535 * (high - low) + low > threshold) == (anomaly_map > threshold).numpy()).all()


def test_metrics_by_portions_are_those_of_all_at_once():
    from d3ad import metrics
    from d3ad.app import evaluating
    generator = np.random.default_rng(0)
    for levels in (3, 40, 10_000):
        maps = generator.integers(0, levels, (9, 12, 12)).astype(np.float32) / 7
        masks = generator.random((9, 12, 12)) < 0.1
        areas = {"small": (0.0, 0.01), "none": (0.9, 1.0)}
        found = evaluating.pixel_metrics(lambda: zip(np.split(maps, 3), np.split(masks, 3)), areas)
        expected = dict(p_auroc=metrics.pixel_auroc(maps, masks),
                        **metrics.pro_by_area(maps, masks, {"pro": (0.0, 1.0)} | areas),
                        pro_200=metrics.pro_200(maps, masks))
        assert found == pytest.approx(expected, abs=1e-12)


def test_large_tensors_of_images_lie_in_a_file(monkeypatch, tmp_path):
    from d3ad.app.part import split_off
    from d3ad.data import base
    for i in range(12):
        photograph(tmp_path / f"{i}.png", value=20 * i)
    small = data.load("folder", tmp_path).images("train", 16)
    monkeypatch.setattr(base, "ROOM", 1)
    large = data.load("folder", tmp_path).images("train", 16)
    assert torch.equal(small, large) and all(map(torch.equal, split_off(large, 0.2, 0), split_off(small, 0.2, 0)))


def test_a_notebook_inspects_every_photograph_of_a_labelled_folder(tmp_path):
    from d3ad.app import part
    from d3ad.study.workspace import open_workspace
    for i in range(10):
        photograph(tmp_path / f"good/{i}.png", value=20 * i)
        photograph(tmp_path / f"new/OK/{i}.png", value=20 * i)
    photograph(tmp_path / "new/NG/1.png")
    parts = part.read(open_workspace("smoke", out=str(tmp_path / "out")), str(tmp_path / "good"), str(tmp_path / "new"))
    assert len(parts.new) == 11 and int(parts.labels.sum()) == 1


def test_results_among_the_photographs_are_not_judged(loaded, tmp_path):
    photograph(tmp_path / "a.png")
    for out in (tmp_path / "out", tmp_path):
        for _ in range(2):
            assert cli.main(["predict", "m", str(tmp_path), "--out", str(out)]) == 0
            table = pd.read_csv(out / "scores.csv")
            assert table.loc[table["state"] == "judged", "path"].tolist() == ["a.png"]


def test_the_next_portion_is_read_while_one_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "PORTION", 2)
    (tmp_path / "p").mkdir()
    for i in range(6):
        Image.new("RGB", (16, 16), (40 * i,) * 3).save(tmp_path / "p" / f"{i}.png")
    entries, read = tree.collect([tmp_path / "p"]), []
    load = judging.load_with_size
    monkeypatch.setattr(judging, "load_with_size", lambda path, *rest: read.append(path) or load(path, *rest))

    class Waiting(Brightness):
        def predict(self, images):
            deadline = time.monotonic() + 20
            while len(read) < min(6, done + 4) and time.monotonic() < deadline:  # the next two are on their way
                time.sleep(0.001)
            assert len(read) >= min(6, done + 4)
            return super().predict(images)

    done, names = 0, []
    for first, portion in judging.in_portions(Waiting(size=16, batch=2), entries, None):
        assert first == done
        names += [entry.name for entry, *_ in portion]
        done += 2
    assert names == [entry.name for entry in entries]
