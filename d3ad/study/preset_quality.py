"""What presets cost in quality, and what they save in time, on the runs of a profile."""
import json
import statistics
import zlib
from pathlib import Path

import pandas as pd

from d3ad.infra.devices import device_name, pick_device
from d3ad.infra.files import read_json, write_whole
from d3ad.speed import presets
from d3ad.speed.presets import PRESETS
from d3ad.speed.timing import timed
from d3ad.study import ablations
from d3ad.study.jobs import on_trained
from d3ad.study.outcome import evaluate
from d3ad.study.workspace import VERSION, Run, Workspace


def _file(run: Run, name: str) -> Path:
    key = f"{VERSION}-{run.config.hash()}-{run.config.hash('tiny_weights')}"  # "fast" takes these
    return run.folder / f"preset-{name}-{key}.json"


def _measure(run: Run, name: str) -> None:
    detector = presets.apply(run.detector, name)
    prediction = detector.predict(run.images, normalisation=run.config.normalisation)
    write_whole(_file(run, name), json.dumps(evaluate(prediction, run.labels, run.masks if run.has_masks else None)))


def summary(workspace: Workspace, runs: list[Run] | None = None) -> pd.DataFrame:
    """Rows as `ablations.summary` has them, in percent, with the names of all presets as methods; cached."""
    runs = workspace.runs() if runs is None else runs
    steps = {name: dict(num_steps=preset.num_steps) if preset.num_steps else {}
             for name, preset in PRESETS.items() if not preset.low_precision}
    exact = ablations.summary(workspace, steps, runs)
    others = [name for name in PRESETS if name not in steps]
    on_trained("presets", _measure, [(run, name) for run in runs for name in others if not _file(run, name).exists()])
    rows = [ablations.row(run, name, read_json(_file(run, name))) for run in runs for name in others]
    return pd.concat([exact, pd.DataFrame(rows)], ignore_index=True)


def seconds(run: Run) -> dict[str, float]:
    """Seconds per image of every preset on one batch of a trained run's test images, in this process; median of some
    rounds, cached.
    """
    parts = [str(VERSION), device_name(pick_device(run.config.device)), run.config.hash("predict_batch"), *PRESETS]
    file = run.folder / f"preset-seconds-{zlib.crc32('|'.join(parts).encode()):08x}.json"
    if not file.exists():
        batch, own = run.images[:run.config.predict_batch], presets.load(run.folder / "detector", run.config.device)
        costs = {name: timed(lambda name=name: presets.apply(own, name).predict, batch, own.device)
                 for name in PRESETS}
        write_whole(file, json.dumps({name: statistics.median(cost["seconds"]) for name, cost in costs.items()}))
    return read_json(file)
