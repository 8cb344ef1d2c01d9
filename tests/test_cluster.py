"""More than one process on one training (accelerate), more than one machine on many (Ray)."""
import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from d3ad import Config
from d3ad.app.cli import main
from d3ad.data import synthetic
from d3ad.infra import parallel, processes
from d3ad.infra.files import write_whole
from d3ad.infra.processes import ALONE, Alone
from d3ad.study import runner

FIT = ["--profile", "smoke", "--held-out", "0.4",
       *(word for setting in ("train_steps=4", "autoencoder_steps=4", "batch_size=5", "k=3")
        for word in ("--set", setting))]


@pytest.mark.parametrize("size, count", [(8, 2), (30, 8), (5, 3)])
def test_the_average_of_the_shares_losses_is_the_whole_batchs(size, count):
    batch, averaged, rows, team = torch.rand(size), 0.0, [], object.__new__(processes.Launched)
    for index in range(count):
        team.state = SimpleNamespace(num_processes=count, process_index=index)
        mine = team.share(batch)
        rows += mine.tolist()
        averaged += team.weighted(mine.mean(), of=size) / count
    assert float(averaged) == pytest.approx(float(batch.mean()), abs=1e-6) and rows == batch.tolist()
    with pytest.raises(ValueError, match=f"a batch of 1 can't be shared by {count} processes"):
        team.weighted(torch.tensor(0.0), of=1)


def test_alone_nothing_is_shared():
    loss, rows = torch.tensor(2.0), torch.rand(3)
    assert processes.launched() is ALONE and ALONE.count == 1 and ALONE.is_first
    assert ALONE.share(rows) is rows and ALONE.gather([1, 2]) == [1, 2]
    assert ALONE.weighted(loss, of=1) is loss and ALONE.average(torch.nn.Linear(1, 1), loss) is loss


def test_one_process_has_the_interface_of_several():
    public = {name for name in vars(processes.Launched) if not name.startswith("_")}
    assert public == {name for name in vars(Alone) if not name.startswith("_")}


def test_two_processes_train_and_score_as_one(tmp_path):
    pytest.importorskip("accelerate", reason='accelerate is not installed: pip install "d3ad[cluster]"')
    good = synthetic.write(tmp_path / "drawn", "mvtec", "button", 12, 1, 1, size=64) / "button" / "train" / "good"
    assert main(["fit", str(good), "--out", str(tmp_path / "one"), *FIT]) == 0
    # no GPU is needed
    options = ("--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no "
               "--main_process_port 0")
    launch = [sys.executable, "-m", "accelerate.commands.launch", *options.split()]
    done = subprocess.run([*launch, "-m", "d3ad", "fit", str(good), "--out", str(tmp_path / "two"), *FIT],
                          capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes share every batch of 5") == 1 == done.stdout.count("saved to")
    one, two = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("one", "two"))
    assert set(one["losses"]) == {"autoencoder", "diffusion", "features", "adaptation"}
    for part, losses in one["losses"].items():
        assert two["losses"][part] == pytest.approx(losses, rel=1e-4, abs=1e-5), part
    # of five images, scored by both
    assert two["threshold"]["value"] == pytest.approx(one["threshold"]["value"], rel=1e-3)
    assert two["threshold"]["num_images"] == 5 and not (tmp_path / "two.training").exists()


def test_ray_does_the_job_of_a_killed_worker_again(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason='Ray is not installed: ./run_tests.sh --long brings it')
    write, kill = write_whole, signal.SIGKILL  # what travels to the workers is named here, not in this file

    def work(run, number: int) -> None:
        with open(run.folder / f"tries-{number}", "a") as tries:
            tries.write("x")
        if number == 2 and not (run.folder / "killed").exists():
            (run.folder / "killed").touch()
            os.kill(os.getpid(), kill)
        write(run.folder / f"result-{number}.json", str(number ** 2))

    monkeypatch.setenv("D3AD_WORKERS", "ray")
    run = dataclasses.make_dataclass("Run", ["config", "folder"], frozen=True)(Config.profile("smoke"), tmp_path)
    with contextlib.redirect_stderr(io.StringIO()):
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
                 object_store_memory=100_000_000)
    try:
        parallel.in_parallel("squares", work, [(run, number) for number in range(5)], torch.device("cpu"))
    finally:
        ray.shutdown()
    found = {path.name: path.read_text() for path in tmp_path.glob("result-*")}
    assert found == {f"result-{number}.json": str(number ** 2) for number in range(5)}
    tries = {path.name[-1]: path.read_text() for path in tmp_path.glob("tries-*")}
    assert tries == {"0": "x", "1": "x", "2": "xx", "3": "x", "4": "x"}


def test_the_runner_says_what_ray_takes(monkeypatch, capsys):
    monkeypatch.setattr(runner.importlib.util, "find_spec", lambda name: None)
    assert runner.main(["--profile", "smoke", "--workers", "ray"]) == 2
    assert 'pip install "d3ad[cluster]"' in capsys.readouterr().err
    assert runner.main(["--workers", "many"]) == 2 and "local" in capsys.readouterr().err
