"""Photographs are judged as they arrive in a folder."""
import json

import pandas as pd
import pytest
from brightness import Brightness
from tiny_datasets import photograph

from d3ad.app import cli, judging, watch
from d3ad.data import tree
from d3ad.speed import presets


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


class Removing(Brightness):
    """A line's controller that takes a photograph away while it is predicted."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def predict(self, *arguments, **options):
        self.file.unlink(missing_ok=True)
        return super().predict(*arguments, **options)


def test_a_photograph_that_is_taken_away_is_named_and_the_others_are_judged(tmp_path):
    gone, said = photograph(tmp_path / "in/a.png"), []
    photograph(tmp_path / "in/b.png")
    lost = watch.watch(Removing(gone), str(tmp_path / "in"), tmp_path / "out", 0.6, interval=0.01,
                       say=lambda line: said.append(json.loads(line)), rounds=3)
    assert lost == 1 and [line["state"] == "judged" for line in said] == [False, True]
    entries = tree.collect([photograph(gone), tmp_path / "in/b.png"])
    found = judging.judge(Removing(gone), entries, tmp_path / "judged", 0.6, "")
    assert (found.num_judged, found.num_new) == (1, 1) and [left.path for left in found.left_out] == [gone]


def test_a_photograph_that_is_written_anew_is_judged_anew(tmp_path):
    current, said = photograph(tmp_path / "in/current.png", value=200), []

    def say(line):
        said.append(json.loads(line))
        if len(said) == 1:
            photograph(current, value=10)

    watch.watch(Brightness(), str(tmp_path / "in"), tmp_path / "out", 0.6, interval=0.01, say=say, rounds=6)
    assert [line["is_anomalous"] for line in said] == [True, False]


def test_the_record_of_another_watch_is_not_removed(tmp_path):
    for day in ("monday", "tuesday"):
        photograph(tmp_path / day / "0001.png")
    look = dict(interval=0.01, say=lambda line: None, rounds=2)
    watch.watch(Brightness(), str(tmp_path / "monday"), tmp_path / "out", 0.6, **look)
    kept = (tmp_path / "out/scores.csv").read_bytes()
    for day, threshold in (("tuesday", 0.6), ("monday", 0.7)):
        with pytest.raises(FileExistsError, match="choose another --out"):
            watch.watch(Brightness(), str(tmp_path / day), tmp_path / "out", threshold, **look)
    assert (tmp_path / "out/scores.csv").read_bytes() == kept
    watch.watch(Brightness(), str(tmp_path / "monday"), tmp_path / "out", 0.6, **look)  # goes on


class Broken(Brightness):
    """A detector whose networks give no number."""

    def predict(self, *arguments, **options):
        found = super().predict(*arguments, **options)
        found.score[:] = float("nan")
        return found


def test_a_score_that_is_no_number_never_passes_for_good(tmp_path):
    entries, said = tree.collect([photograph(tmp_path / "in/a.png")]), []
    found = judging.judge(Broken(), entries, tmp_path / "judged", 0.6, "")
    assert found.num_judged == 0 and "not a finite number" in found.left_out[0].reason and found.num_lost == 1
    lost = watch.watch(Broken(), str(tmp_path / "in"), tmp_path / "watched", 0.6, interval=0.01,
                       say=lambda line: said.append(json.loads(line)), rounds=2)
    assert lost == 1 and "not a finite number" in said[0]["state"]
    assert Broken().predict(str(tmp_path / "in")).is_anomalous.tolist() == [True]


def test_a_file_that_still_grows_is_waited_for(tmp_path):
    file, known, seen = photograph(tmp_path / "a.png"), {}, {}
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert not list(watch.arrivals(tmp_path, known, seen))
    file.write_bytes(whole)
    assert not list(watch.arrivals(tmp_path, known, seen))
    assert [entry.name for entry in watch.arrivals(tmp_path, known, seen)] == ["a.png"]


def test_what_is_no_photograph_counts_neither_as_judged_nor_as_lost(tmp_path, monkeypatch, capsys):
    photograph(tmp_path / "in/a.png")
    (tmp_path / "in/notes.txt").write_text("mine")
    (tmp_path / "in/Thumbs.db").write_bytes(b"x")
    looks = []

    def sleep(seconds):  # the detector sleeps too, for 0 seconds
        looks.append(seconds)
        if sum(looks) > 1.2:
            raise KeyboardInterrupt

    monkeypatch.setattr(presets, "load", lambda folder, device="auto": Brightness())
    monkeypatch.setattr(watch.time, "sleep", sleep)
    command = ["watch", "m", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--threshold", "0.6", "--interval",
               "0.5"]
    assert cli.main(command) == 0
    assert "\n1 photographs judged; the same" in capsys.readouterr().err
    (tmp_path / "in/b.png").write_bytes(b"damaged")
    looks.clear()
    assert cli.main(command) == 3
    assert "\n0 photographs judged, 1 could not be judged; the same" in capsys.readouterr().err
