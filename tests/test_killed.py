"""Killed at any moment, a training goes on and ends with the same bytes; two at once keep out of each other's way."""
import errno
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from d3ad import D3AD
from d3ad.app import cli
from d3ad.infra import checkpoint, files, parallel
from d3ad.study import provenance, runner

FORK = multiprocessing.get_context("fork") if sys.platform != "win32" else None
LEFT_OVER = f".model.d3ad-{files.MACHINE}-{{}}.{{}}".format
NOBODY = 4_000_000  # above the largest process number of Linux: no such process


def train_and_save(config, images, folder: Path) -> None:
    """A tiny training with a state after every step, resumed where there is one, and the saved detector."""
    from d3ad import conditioning, training
    if conditioning.faiss is not None:
        # a forked process has none of its parent's threads, and would wait for them
        conditioning.faiss.omp_set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
    optimise = training.optimise
    training.optimise = lambda *args, **options: optimise(*args, **options | {"save_every": 0})
    D3AD(config).fit(images, folder / "training").save(folder / "model")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_at_random_moments_it_ends_with_the_same_bytes(tiny, images, tmp_path, long):
    train_and_save_in_a_child(tiny, images, tmp_path / "whole")
    whole, moments = content(tmp_path / "whole"), random.Random(0)
    kills = rounds = 0
    while kills < (20 if long else 4):
        child = FORK.Process(target=train_and_save, args=(tiny, images, tmp_path / f"killed{rounds}"))
        child.start()
        child.join(moments.uniform(0.01, 0.5))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.join()
        rounds += child.exitcode == 0  # it was done before the kill: begin anew
    for folder in tmp_path.glob("killed*"):
        train_and_save_in_a_child(tiny, images, folder)
        files.tidy(folder)
        assert content(folder) == whole


def train_and_save_in_a_child(*arguments) -> None:
    child = FORK.Process(target=train_and_save, args=arguments)
    child.start()
    child.join()
    assert child.exitcode == 0


def work(pipe, employer: int) -> None:
    parallel._end_with(employer)
    pipe.send(os.getpid())
    time.sleep(60)


def employ(pipe) -> None:
    FORK.Process(target=work, args=(pipe, os.getpid())).start()
    time.sleep(60)


def test_a_worker_ends_with_the_process_that_it_works_for():
    here, there = FORK.Pipe()
    employer = FORK.Process(target=employ, args=(there,))
    employer.start()
    assert here.poll(20)
    worker = psutil.Process(here.recv())
    employer.kill()
    employer.join()
    for _ in range(200):
        if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    worker.kill()
    pytest.fail("the worker goes on without its employer")


# ---- what a killed process leaves ----


def test_left_over_parts_are_removed_and_those_of_living_processes_stay(tmp_path):
    for process in (NOBODY, os.getppid()):
        (tmp_path / "deep" / LEFT_OVER(process, "part")).mkdir(parents=True)
        (tmp_path / "deep" / LEFT_OVER(process, "part") / "x").write_text("half")
    (tmp_path / f".table.csv.d3ad-{files.MACHINE}-{NOBODY}.part").write_text("half")
    own = [tmp_path / name for name in ("thesis.part", "table.2024.old", f"table.d3ad-{NOBODY}.part.txt",
                                   f".table.csv.d3ad-another_machine-{NOBODY}.part")]
    for path in own:
        path.write_text("a person's")
    old = tmp_path / f".table.csv.d3ad-renamed_machine-{NOBODY}.part"
    old.write_text("half")
    os.utime(old, (0, 0))
    files.tidy(tmp_path)
    kept = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert kept == sorted([*(path.name for path in own), "x"])


def test_killed_between_two_renames_the_old_model_comes_back(fitted, tmp_path):
    model = fitted.save(tmp_path / "model")
    model.rename(tmp_path / LEFT_OVER(NOBODY, "old"))          # as if killed just there
    (tmp_path / LEFT_OVER(NOBODY, "part")).mkdir()
    assert D3AD.load(model).config == fitted.config.replace(device="auto")
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["model"]
    fitted.save(model)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_save_that_fails_leaves_the_old_model(fitted, tmp_path, monkeypatch):
    before = content(fitted.save(tmp_path / "model"))
    for moment in ("save_file", "rename"):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(*((checkpoint, "save_file") if moment == "save_file" else (files, "_name")), full_disk)
            fitted.save(tmp_path / "model")
        assert content(tmp_path / "model") == before and len(list(tmp_path.iterdir())) == 1


def test_of_two_that_save_at_once_one_stays_whole(tmp_path, monkeypatch):
    with files.replacing(tmp_path / "model") as first:
        (first / "x").write_text("first")
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "getpid", lambda: os.getppid())  # as another process
            with files.replacing(tmp_path / "model") as second:
                (second / "x").write_text("second")
        assert content(tmp_path / "model") == {"x": b"second"}
    assert content(tmp_path) == {"model/x": b"first"}


def test_a_folder_that_is_no_detector_is_not_replaced(fitted, tmp_path):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs/config.json").write_text("{}")
    for place in (tmp_path, tmp_path / "photographs", tmp_path / "photographs/config.json"):
        with pytest.raises(FileExistsError, match="is not a saved detector, so it is not replaced"):
            fitted.save(place)
    assert content(tmp_path) == {"photographs/config.json": b"{}"}
    fitted.save(tmp_path / "model")
    (tmp_path / "model/notes.txt").write_text("mine")
    (tmp_path / "photographs/calibration").mkdir()
    for place, said in ((tmp_path / "model", "also holds notes.txt, so it is not replaced"),
                        (tmp_path / "photographs", "is not a saved detector, so it is not replaced")):
        with pytest.raises(FileExistsError, match=said):
            fitted.save(place)
    assert (tmp_path / "model/notes.txt").read_text() == "mine"


# ---- two at once ----


def hold(lock: Path, ready) -> None:
    with files.alone(lock, "computes"):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock."""
    ready = FORK.Event()
    child = FORK.Process(target=hold, args=(tmp_path / "cache" / "smoke.lock", ready))
    child.start()
    assert ready.wait(20)
    yield child
    child.kill()
    child.join()


def test_a_second_process_is_refused_by_name_and_a_dead_one_holds_nothing(holder, tmp_path):
    lock = tmp_path / "cache" / "smoke.lock"
    message = rf"another process \({holder.pid}\) computes; wait until it ends, or give another --out"
    with pytest.raises(files.Busy, match=message), files.alone(lock, "computes"):
        pass
    holder.kill()
    holder.join()
    with files.alone(lock, "computes"):
        assert lock.read_text() == str(os.getpid())
    assert not lock.exists()


def test_a_second_run_is_refused_in_one_line(holder, tmp_path, capsys):
    assert runner.main(["--profile", "smoke", "--out", str(tmp_path), "--only", "03"]) == 2
    said = capsys.readouterr().err
    assert f"another process ({holder.pid}) computes the smoke profile in" in said and said.count("\n") == 1


def test_a_second_fit_of_one_model_is_refused_in_one_line(tmp_path, capsys, images):
    from PIL import Image
    (tmp_path / "good").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(tmp_path / f"good/{i}.png")
    with files.alone(tmp_path / "m.training" / "lock", "trains"):
        code = cli.main(["fit", str(tmp_path / "good"), "--out", str(tmp_path / "m"), "--profile", "smoke"])
    assert code == 2 and not (tmp_path / "m").exists()
    assert f"another process ({os.getpid()}) is training" in capsys.readouterr().err


def add(note: Path, lock: Path, name: str) -> None:
    for i in range(40):
        with files.in_turn(lock):
            entries = files.read_json(note) if note.exists() else {}
            entries[f"{name}{i}"] = i
            files.write_whole(note, json.dumps(entries))


def test_two_that_note_at_once_lose_no_note(tmp_path):
    children = [FORK.Process(target=add, args=(tmp_path / "note.json", tmp_path / "lock", name)) for name in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len(files.read_json(tmp_path / "note.json")) == 80


# ---- trouble around ----


def full_disk(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space left on device", "a.csv"),
     "a.csv: No space left on device; free some space, then give the same command again"),
    (OSError(errno.EROFS, "Read-only file system", "results"),
     "results: Read-only file system; choose another folder with --out"),
    (PermissionError(errno.EACCES, "Permission denied", "x"),
     "x: Permission denied; choose another folder with --out, or change its permissions"),
    (OSError("no file of\nthis kind"), "no file of this kind"),
    (OSError(errno.EIO, "Input/output error"), "Input/output error"), ])
def test_trouble_with_files_is_one_line(monkeypatch, capsys, error, said):
    def fail(*args, **options):
        raise error

    assert files.explain(error).startswith(said) and "\n" not in files.explain(error)
    monkeypatch.setattr(cli, "run_synthesize", fail)
    monkeypatch.setattr(runner, "check", fail)
    assert cli.main(["synthesize", "x"]) == 2 and runner.main(["--profile", "smoke"]) == 1
    assert all(line == "" or said in line for line in capsys.readouterr().err.splitlines())


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    files.write_whole(tmp_path / "table.csv", "old")
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError) as error:
        files.write_whole(tmp_path / "table.csv", "new")
    assert files.explain(error.value).startswith(f"{tmp_path / 'table.csv'}: No space left on device")
    assert content(tmp_path) == {"table.csv": b"old"}


def test_tensors_that_find_no_room_raise_an_error_of_files(fitted, tmp_path, monkeypatch):
    import safetensors.torch

    def refuse(*args, **options):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(OSError, match=r"x.safetensors can't be written: I/O error: No space left"):
        files.save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(10)}, {})
    with pytest.raises(OSError, match="No space left"):
        fitted.save(tmp_path / "model")
    assert content(tmp_path) == {}


@pytest.mark.parametrize("content_of", [b"", b"{", b"\xff", b'{"a": NaN}', b"[" * 50_000])
def test_a_damaged_file_of_the_cache_is_named(tmp_path, content_of):
    (tmp_path / "x").write_bytes(content_of)
    for read in (files.read_json, files.load_tensors):
        with pytest.raises(ValueError, match="x is damaged"):
            read(tmp_path / "x")


def test_a_run_goes_on_where_the_results_folder_is_a_file(tmp_path, capsys):
    (tmp_path / "cache").write_text("")
    assert runner.main(["--profile", "smoke", "--out", str(tmp_path), "--only", "03"]) == 1
    said = capsys.readouterr().err.strip()
    assert "cache" in said and "\n" not in said


def test_figures_are_drawn_without_a_display_and_without_the_usual_font(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    from d3ad.study.workspace import open_workspace
    workspace = open_workspace("smoke", out=str(tmp_path))
    monkeypatch.delenv("DISPLAY", raising=False)
    with plt.rc_context({"font.family": "A Font That Nobody Has"}):
        fig, ax = plt.subplots()
        ax.set_title("a title")
        provenance.save_figure(workspace, fig, "fig05")
    provenance.written(workspace, "fig05")


def test_missing_weights_without_a_network_say_which_file_to_put_where(monkeypatch):
    import timm

    from d3ad.features import FeatureExtractor
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(FileNotFoundError,
                       match="put the hub's timm/resnet34.tv_in1k/model.safetensors into a folder and set "
                             "backbone_weights"):
        FeatureExtractor("resnet34.tv_in1k", "hub")


def test_a_model_of_an_older_version_is_refused(fitted, tmp_path):
    model = fitted.save(tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"format": 0}))
    with pytest.raises(ValueError, match="format 0, this version reads 1: train the detector anew"):
        D3AD.load(model)
