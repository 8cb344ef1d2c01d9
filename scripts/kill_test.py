"""Kill ./run_all.sh at random moments and go on; what it ends with must be, byte for byte, what an undisturbed run ends
with.

    python scripts/kill_test.py [--kills 20] [--only 03] [--seed 0]

Runs the smoke profile in a temporary folder.  Every second kill is of the runner alone, as by hand, the others take its
kernel and workers too, as when the power fails.  A run that ends before its kill is compared, and the next one begins
from nothing.
"""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from d3ad.infra.files import ROOT

TIMED = ("minutes.json", "provenance.json")  # hold times, so they differ in any case


def start(out: Path, only: str) -> subprocess.Popen:
    """A smoke run in a session of its own."""
    command = [sys.executable, "-m", "d3ad.study.runner", "--profile", "smoke", "--out", str(out),
               *(["--only", only] if only else [])]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def products(out: Path) -> dict[str, bytes]:
    """Figures, tables and trained networks, by name, and what the provenance says of each file."""
    kept = [*out.glob("figures/**/*"), *out.glob("results/**/*"), *out.glob("cache/**/*model.safetensors")]
    contents = {str(path.relative_to(out)): path.read_bytes() for path in kept if path.is_file()
                and path.name not in TIMED}
    notes = json.loads((out / "results/smoke/provenance.json").read_text())
    return contents | {f"provenance of {path}": entry["sha256"].encode() for path, entry in notes.items()}


def kill(run: subprocess.Popen, alone: bool) -> None:
    """SIGKILL for the runner, or for all its processes; then wait until none is left."""
    family = psutil.Process(run.pid).children(recursive=True)
    for process in [run, *([] if alone else family)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    run.communicate()
    _, living = psutil.wait_procs(family, timeout=30)
    assert not living, f"still running half a minute after the kill: {living}"


def finish(out: Path, only: str) -> float:
    """Run to the end; the seconds that it took."""
    started, run = time.monotonic(), start(out, only)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    return time.monotonic() - started


def compare(out: Path, expected: dict[str, bytes]) -> None:
    """Raise AssertionError where files differ, are missing, or are left over."""
    contents = products(out)
    differing = sorted(name for name in contents.keys() | expected.keys() if contents.get(name) != expected.get(name))
    left_over = [str(path) for path in out.rglob("*") if ".d3ad-" in path.name or "unfinished" in path.name]
    assert not differing and not left_over, f"differing: {differing}; left over: {left_over}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", default="03", help="notebooks, as in run_all.sh; empty: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, out = Path(folder, "whole"), Path(folder, "killed")
        seconds = finish(whole, options.only)
        expected = products(whole)
        print(f"undisturbed: {seconds:.0f} s, {len(expected)} files and notes", flush=True)
        kills = rounds = 0
        while kills < options.kills:
            run = start(out, options.only)
            try:
                run.communicate(timeout=moments.uniform(0.2, min(0.9 * seconds, 25)))
            except subprocess.TimeoutExpired:
                kills += 1
                kill(run, alone=kills % 2 == 0)
                print(f"kill {kills}", flush=True)
                continue
            assert run.returncode == 0
            compare(out, expected)
            rounds += 1
            shutil.rmtree(out)
        finish(out, options.only)
        compare(out, expected)
        print(f"{kills} kills, {rounds + 1} runs to the end: the same bytes each time, nothing left over")


if __name__ == "__main__":
    main()
