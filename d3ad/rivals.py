"""The rivals on the same images as D3AD: each is fitted once per run, and what it says is kept in the cache.

They share the run's data, image size, metrics and feature extractor; the diffusion rivals share its trained networks too.
"""
import json
import os
import time
from dataclasses import dataclass

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save_file

from d3ad.baselines import RIVALS, Resources, RivalPrediction, make, rival_class
from d3ad.experiments import Run, Workspace, bare, evaluate, in_parallel, shared_backbone, train, write_whole
from d3ad.sweeps import METRICS

VERSION = 1  # raised when a rival computes something else


@dataclass
class RivalOutcome:
    """What a rival said of a run's test images, and the numbers of `evaluate` with steps, seconds_fit and seconds an image."""

    prediction: RivalPrediction
    metrics: dict[str, float | None]


def available(workspace: Workspace) -> list[str]:
    """The rivals of the profile that can be imported; prints a line for each one that can't."""
    found = []
    for name in workspace.config.rivals:
        try:
            rival_class(name)
            found.append(name)
        except ImportError as error:
            print(f"{name} is not measured: {error}")
    return found


def _file(run: Run, name: str):
    slug = RIVALS[name][0]
    return run.folder / f"rival-{slug}-{VERSION}-{run.config.hash('rival_steps', 'rival_width', 'normalisation')}.safetensors"


def _measure(run: Run, name: str) -> None:
    rival = make(name, Resources(run.config, shared_backbone(run, {}), run.detector))
    images = run.dataset.images("train", run.config.image_size)
    started = time.perf_counter()
    rival.fit(images)
    fitted = time.perf_counter()
    prediction = rival.predict(run.images)
    numbers = evaluate(prediction, run.labels, run.masks) | dict(
        steps=rival.num_steps(len(images)), steps_asked=rival.steps_asked(len(images)), seconds_fit=fitted - started,
        seconds=(time.perf_counter() - fitted) / len(run.images))
    tensors = dict(score=prediction.score, anomaly_map=prediction.anomaly_map.half())
    if prediction.reconstruction is not None:
        tensors["reconstruction"] = ((prediction.reconstruction + 1) * 127.5).round().byte()
    file = _file(run, name)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata={"about": json.dumps(dict(metrics=numbers, threshold=prediction.threshold))})
    part.rename(file)
    write_whole(file.with_suffix(".json"), json.dumps(numbers))


def prepare(runs: list[Run], names: list[str]) -> None:
    """Measure what the cache lacks, in parallel."""
    jobs = [(run, name) for name in names for run in runs if not _file(run, name).with_suffix(".json").exists()]
    train(list({id(run): run for run, _ in jobs}.values()))
    in_parallel("rivals", _measure, [(bare(run), name) for run, name in jobs])


def outcome(run: Run, name: str) -> RivalOutcome:
    """A rival's scores, maps and metrics on the run's test images; cached."""
    prepare([run], [name])
    with safe_open(_file(run, name), "pt") as stored:
        about = json.loads(stored.metadata()["about"])
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}
    tensors["anomaly_map"] = tensors["anomaly_map"].float()
    if "reconstruction" in tensors:
        tensors["reconstruction"] = tensors["reconstruction"].float() / 127.5 - 1
    return RivalOutcome(RivalPrediction(**tensors, threshold=about["threshold"]), about["metrics"])


def summary(workspace: Workspace, names: list[str], runs: list[Run] | None = None) -> pd.DataFrame:
    """A row per (dataset, category, split, seed, rival) as `sweeps.summary` has them, in percent, with the training steps
    that were done and those that the rival's paper asks for.
    """
    runs = workspace.runs() if runs is None else runs
    prepare(runs, names)
    rows = []
    for run in runs:
        for name in names:
            numbers = json.loads(_file(run, name).with_suffix(".json").read_text(encoding="utf-8"))
            rows.append(dict(dataset=workspace.title(run.name), category=run.category, split=run.config.split, seed=run.config.seed,
                             method=name, **{f"measured_{m}": None if numbers[m] is None else 100 * numbers[m] for m in METRICS},
                             steps=numbers["steps"], steps_asked=numbers["steps_asked"]))
    return pd.DataFrame(rows)
