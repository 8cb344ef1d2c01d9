"""Photographs of one's own are judged: in their own size, by a threshold, in portions, and after any kill."""
import dataclasses
import io
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from brightness import Brightness
from PIL import Image
from tiny_datasets import photograph

from d3ad import data
from d3ad.app import cli, evaluating, judging, portions, report
from d3ad.app.judging import Out
from d3ad.data import tree
from d3ad.data.given import as_images
from d3ad.speed import presets


@pytest.fixture()
def loaded(monkeypatch):
    """The command line finds a `Brightness` in place of any model."""
    detector = Brightness()
    monkeypatch.setattr(presets, "load", lambda folder, device="auto": detector)
    monkeypatch.setattr(presets, "apply", lambda detector, name: detector)
    return detector


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


def test_results_among_the_photographs_are_not_judged(loaded, tmp_path):
    photograph(tmp_path / "a.png")
    for out in (tmp_path / "out", tmp_path):
        for _ in range(2):
            assert cli.main(["predict", "m", str(tmp_path), "--out", str(out)]) == 0
            table = pd.read_csv(out / "scores.csv")
            assert table.loc[table["state"] == "judged", "path"].tolist() == ["a.png"]


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


def test_no_threshold_rests_on_known_defects(tmp_path):
    photograph(tmp_path / "NG/b.png")
    with pytest.raises(data.DataError, match="all of its images lie in folders of defects"):
        data.photographs(tmp_path, good_only=True)
    photograph(tmp_path / "a.png")
    assert [sample.image.name for sample in data.photographs(tmp_path, good_only=True).test] == ["a.png"]
    assert len(data.photographs(tmp_path).test) == 2


def test_a_dataset_without_images_of_a_split_is_named(tmp_path):
    photograph(tmp_path / "parts/a.png")
    empty = dataclasses.replace(data.photographs(tmp_path / "parts"), test=())
    for split, what in (("test", "test"), ("good", "good test"), ("train", "training")):
        with pytest.raises(ValueError, match=f"parts.*: there is no {what} image in it"):
            as_images(empty, 64, split)


# ---- any number ----

def test_a_kill_before_the_run_is_marked_finished_loses_no_picture(tmp_path, monkeypatch):
    photograph(tmp_path / "parts/a.png")
    run, reached = (Brightness(), tree.collect([tmp_path / "parts"]), tmp_path / "out", 0.5, "A sentence."), Out.reached
    judging.judge(*run)
    whole = (tmp_path / "out/report.html").read_bytes()

    def killed(place, key, done, finished=False):
        if finished:
            raise KeyboardInterrupt
        reached(place, key, done)

    monkeypatch.setattr(Out, "reached", killed)
    with pytest.raises(KeyboardInterrupt):
        judging.judge(*run)
    monkeypatch.setattr(Out, "reached", reached)
    judging.judge(*run)
    assert (tmp_path / "out/report.html").read_bytes() == whole and not (tmp_path / "out/.d3ad/page").exists()


def test_portions_change_nothing_but_memory(tmp_path):
    for i in range(70):
        photograph(tmp_path / f"p/{i}.png", value=(7 * i) % 256)
    whole, parts = Brightness(batch=4), Brightness(batch=100)
    for detector, name in ((whole, "a"), (parts, "b")):
        judging.judge(detector, tree.collect([tmp_path / "p"]), tmp_path / name, 0.6, "")
    assert whole.largest == portions.PORTION and parts.largest == 70
    assert (tmp_path / "a/scores.csv").read_bytes() == (tmp_path / "b/scores.csv").read_bytes()


def written(out: Path) -> dict:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
            and ".d3ad" not in path.parts}


def test_kills_at_random_moments_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 4)
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


def test_portions_computed_at_once_come_in_order_and_change_nothing(fitted, tmp_path, monkeypatch):
    for i in range(14):
        photograph(tmp_path / f"p/{i:02}.png", value=(37 * i) % 256)
    (tmp_path / "p/05.png").write_bytes(b"damaged")
    entries = tree.collect([tmp_path / "p"])
    monkeypatch.setattr(portions, "portion_size", lambda detector: 2)

    def scores(count: int) -> list[tuple[str, float | None]]:
        monkeypatch.setattr(portions, "threads", lambda detector: count)
        return [(entry.name, None if found is None else float(found.score[i]))
                for _, portion in portions.in_portions(fitted, entries, None, 2) for entry, found, i, _ in portion]

    before = torch.get_num_threads()
    one, three = scores(1), scores(3)
    assert [name for name, _ in three] == [entry.name for entry in entries[2:]] and torch.get_num_threads() == before
    assert [score is None for _, score in three] == [name == "05.png" for name, _ in three]
    assert [score for _, score in three if score] == pytest.approx([score for _, score in one if score], rel=1e-4)


def test_the_next_portion_is_read_while_one_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 2)
    (tmp_path / "p").mkdir()
    for i in range(6):
        Image.new("RGB", (16, 16), (40 * i,) * 3).save(tmp_path / "p" / f"{i}.png")
    entries, read = tree.collect([tmp_path / "p"]), []
    load = portions.load_with_size
    monkeypatch.setattr(portions, "load_with_size", lambda path, *rest: read.append(path) or load(path, *rest))

    class Waiting(Brightness):
        def predict(self, images, **options):
            deadline = time.monotonic() + 20
            while len(read) < min(6, done + 4) and time.monotonic() < deadline:  # the next two are on their way
                time.sleep(0.001)
            assert len(read) >= min(6, done + 4)
            return super().predict(images, **options)

    done, names = 0, []
    for first, portion in portions.in_portions(Waiting(size=16, batch=2), entries, None):
        assert first == done
        names += [entry.name for entry, *_ in portion]
        done += 2
    assert names == [entry.name for entry in entries]


def test_evaluate_sees_the_pixels_that_predict_sees(tmp_path, monkeypatch):
    for name, value in (*((f"good/{i}", 300) for i in range(5)), ("crack/0", 900)):  # one of five is for the test
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16), value, np.uint16)).save(tmp_path / f"{name}.png")
    detector, scores = Brightness(), []
    detector.white = 4095  # of the images that it was trained on; these here say 1023
    predict = detector.predict
    monkeypatch.setattr(detector, "predict", lambda images: scores.extend(predict(images).score.tolist()) or
                        predict(images))
    evaluating.evaluate(detector, data.load("folder", tmp_path), with_masks=False)
    assert sorted(scores) == pytest.approx([300 / 4095, 900 / 4095], abs=1e-6)


def test_a_run_that_goes_on_counts_apart_what_it_judged_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(portions, "PORTION", 4)
    for i in range(10):
        photograph(tmp_path / f"in/{i}.png")
    detector, entries, seen = Brightness(), tree.collect([tmp_path / "in"]), []
    predict = detector.predict

    def stopped(images, **options):
        seen.append(images)
        if len(seen) > 2:
            raise KeyboardInterrupt
        return predict(images)

    monkeypatch.setattr(detector, "predict", stopped)
    with pytest.raises(KeyboardInterrupt):
        judging.judge(detector, entries, tmp_path / "out", 0.6, "")
    monkeypatch.setattr(detector, "predict", predict)
    found = judging.judge(detector, entries, tmp_path / "out", 0.6, "")
    assert (found.num_judged, found.num_new) == (10, 2)
