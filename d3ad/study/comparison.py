"""The baselines on the same images as D3AD: each is fitted once per run, and what it says is kept in the cache.

They share the run's data, image size, metrics and feature extractor; DDAD its trained networks, too.
"""
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from d3ad.baselines import (
    BASELINES,
    BaselinePrediction,
    Resources,
    baseline_class,
    installed,
    make,
    registered,
    title_of,
)
from d3ad.baselines.base import Budget
from d3ad.config import Config
from d3ad.infra.devices import pick_device
from d3ad.infra.files import load_tensors, read_json, save_tensors, write_whole
from d3ad.study import ablations, long_runs
from d3ad.study.jobs import on_trained, together
from d3ad.study.outcome import as_bytes, evaluate, from_bytes
from d3ad.study.ranking import marked, training_word
from d3ad.study.settings import Study
from d3ad.study.shared import shared_backbone
from d3ad.study.workspace import Run, Workspace

LONG = "mvtec-cpu"  # the profile whose long baselines are measured for those that have none
BUDGET = ("images", "images_asked", "training")  # seen in training; those asked for; a word of `ranking.TRAINING`
# D3AD without what is ours and no baseline has, where a profile has it: standardised maps, or another distance, too
NOT_STANDARDISED, PAPERS_MAPS = "D3AD, maps not standardised", "D3AD, the paper's maps"
# of training for a category at the demo's sizes, one core, networks on pixels at a quarter of their width, as
# scripts/baseline_minutes.py measures them; those that are not named collect features, or take D3AD's networks
MINUTES = {"RD4AD": 3, "DRAEM": 280, "AnoDDPM": 2800, "DiffusionAD": 4500, "FastFlow": 12, "CFA": 1, "RD++": 12,
           "SimpleNet": 4, "GANomaly": 30, "SkipGANomaly": 22}
VERSION = 3  # raised when all baselines compute something else
# raised when one of them does
NEWER = {"DDAD": 4, "RD4AD": 5, "RD++": 5, "SimpleNet": 5, "DiffusionAD": 5, "AnoDDPM": 5}


@dataclass
class BaselineOutcome:
    """What a baseline said of a run's test images, and the numbers of `evaluate` with those of BUDGET."""

    prediction: BaselinePrediction
    metrics: dict[str, float | None]


def available(workspace: Workspace) -> list[str]:
    """The baselines of the profile whose packages are installed; prints a line for each of the others.

    Of `long_baselines` those count that were measured on some category (`is_for`).
    """
    study, runs = workspace.study, workspace.runs()
    return [name for name in installed(dict.fromkeys((*study.baselines, *study.long_baselines)))
            if name in study.baselines or any(is_for(run, name) for run in runs)]


def titles(names: list[str]) -> dict[str, str]:
    """What the tables call these baselines, to their names."""
    return {title_of(name): name for name in names}


def left_out(workspace: Workspace, names: list[str]) -> str:
    """Sentences on the paper's baselines that a profile doesn't measure, and why.  names: those that it measures."""
    missing = [name for name in BASELINES if name not in names]
    parts = to_be_trained(workspace, [name for name in missing if name in MINUTES])
    untrained = [name for name in missing if name not in MINUTES]
    if waiting := [name for name in untrained if name in workspace.study.long_baselines]:
        parts.append(f"not measured yet: {', '.join(waiting)}")
    if others := [name for name in untrained if name not in waiting]:
        parts.append(f"not in this profile's list: {', '.join(others)}")
    return f"Not measured in this profile; {'; '.join(parts)}." if parts else \
        "All of the paper's baselines are measured here."


def to_be_trained(workspace: Workspace, names: list[str]) -> list[str]:
    """How long these baselines take, and where they are measured or can be; parts of a sentence."""
    if not names:
        return []
    own = workspace.name.removesuffix("-changed")
    place = own if set(names) <= set(workspace.study.long_baselines) else LONG
    done = [name for name in names if place != own and name in long_runs.methods(place)]
    left = [name for name in names if name not in done]
    first, *others = names
    needs = ", ".join([f"{first} needs about {MINUTES[first]} minutes of training a category",
                       *(f"{name} about {MINUTES[name]}" for name in others)])
    parts = [f"{needs} (80 images of 128 pixels, one core)"]
    if done:
        parts.append(f"measured in {place}: {', '.join(done)}")
    if left:
        limit = Study.profile(place).baseline_minutes
        cut = any(0 < limit < MINUTES[name] for name in left)
        root = " --data-root DIR" if Study.profile(place).source == "disk" else ""
        parts.append(f"python -m d3ad.study.measure --profile {place}{root} measures "
                     + (", ".join(left) if done else "them")
                     + f" (networks on pixels for at most {limit:g} minute{'s' * (limit != 1)})" * cut)
    return parts


def version_of(run: Run, name: str) -> str:
    """The version of a baseline and of its budget."""
    settings = run.workspace.study.hash("baseline_images", "baseline_minutes", "baseline_width")
    module, kind, _ = registered(name)
    return f"{module if name in BASELINES else kind.lower()}-{NEWER.get(name, VERSION)}-{settings}"


def file_of(run: Run, name: str) -> Path:
    """Where a baseline's `outcome` is kept; what else is known of it lies beside it."""
    return run.folder / f"baseline-{version_of(run, name)}.safetensors"


def _numbers(run: Run, name: str) -> Path:
    return file_of(run, name).with_suffix(".json")


def _measure(run: Run, name: str) -> None:
    study, file = run.workspace.study, file_of(run, name)
    budget = Budget(study.baseline_images, study.baseline_minutes, study.baseline_width)
    kind, training = baseline_class(name), file.with_suffix("")
    baseline = make(name, Resources(run.config, shared_backbone(run, {}), run.detector if kind.needs_detector else None,
                                    budget, training))
    images = run.normal_images
    baseline.fit(images)
    prediction = baseline.predict(run.images)
    done, asked = baseline.images_done, baseline.images_asked(len(images))
    numbers = evaluate(prediction, run.labels, run.masks if run.has_masks else None) | dict(
        images=done, images_asked=asked, training=training_word(done, asked), minutes=_minutes(training))
    tensors = dict(score=prediction.score, anomaly_map=prediction.anomaly_map.half())
    if prediction.reconstruction is not None:
        tensors["reconstruction"] = as_bytes(prediction.reconstruction)
    save_tensors(file, tensors, dict(metrics=numbers, threshold=prediction.threshold))
    write_whole(_numbers(run, name), json.dumps(numbers))
    shutil.rmtree(training, ignore_errors=True)  # the training's state is of no more use


def _minutes(training: Path) -> float | None:
    """The minutes of a training, those before an interruption included; None where nothing was trained."""
    file = training / "seconds.json"
    return round(read_json(file) / 60, 1) if file.exists() else None


def is_meant_for(run: Run, name: str) -> bool:
    """Whether the profile has a baseline measured on this category: those on pixels may be meant for some only."""
    chosen = run.workspace.study.baseline_pixel_categories
    return not chosen or run.category in chosen or not baseline_class(name).on_pixels


def is_for(run: Run, name: str) -> bool:
    """Whether a baseline's numbers on this category are shown: where it is meant for it, and, if it takes too long for
    a notebook, has been measured on it.
    """
    return is_meant_for(run, name) and (not _is_long(run, name) or is_kept(run, name))


def _is_long(run: Run, name: str) -> bool:
    study = run.workspace.study
    return name in study.long_baselines and name not in study.baselines


def is_kept(run: Run, name: str) -> bool:
    """Whether a baseline's numbers on this run lie in the cache, or in the table of long ones."""
    return _numbers(run, name).exists() or (_is_long(run, name) and has_long(run, name))


def has_maps(run: Run, name: str) -> bool:
    """Whether `outcome` can say what a baseline said of each image: a long one's maps may be gone, its numbers not."""
    return is_for(run, name) and (not _is_long(run, name)
                                  or (file_of(run, name).exists() and _numbers(run, name).exists()))


def numbers(run: Run, name: str) -> dict[str, float | None]:
    """A baseline's metrics on a run, as `outcome` has them; of one that was measured."""
    return read_json(_numbers(run, name))


def prepare(runs: list[Run], names: list[str]) -> None:
    """Measure what the cache lacks, in parallel; D3AD is trained only where a baseline takes over its networks."""
    measure((run, name) for run in runs for name in names if is_for(run, name))


def measure(pairs: Iterable[tuple[Run, str]]) -> None:
    """Measure each baseline on its run where the cache lacks it; as `prepare`, and without its choice."""
    jobs = []
    for run, name in pairs:
        if is_kept(run, name):  # a run that was killed when its numbers were written leaves its training's state
            shutil.rmtree(file_of(run, name).with_suffix(""), ignore_errors=True)
        else:
            jobs.append((run, name))
    on_trained("baselines", _measure, [job for job in jobs if baseline_class(job[1]).needs_detector])
    own = [job for job in jobs if not baseline_class(job[1]).needs_detector]
    large = [(run, name) for run, name in own
             if baseline_class(name).on_pixels and pick_device(run.config.device).type == "cuda"]
    together("baselines", _measure, [job for job in own if job not in large])
    for job in large:  # each may need most of a GPU
        together("baselines", _measure, [job])


def outcome(run: Run, name: str) -> BaselineOutcome:
    """A baseline's scores, maps and metrics on the run's test images; cached.

    Raises FileNotFoundError where only a long one's numbers are kept (`has_maps`).
    """
    prepare([run], [name])
    tensors, about = load_tensors(file_of(run, name))
    tensors["anomaly_map"] = tensors["anomaly_map"].float()
    if "reconstruction" in tensors:
        tensors["reconstruction"] = from_bytes(tensors["reconstruction"])
    return BaselineOutcome(BaselinePrediction(**tensors, threshold=about["threshold"]), about["metrics"])


def summary(runs: list[Run], names: list[str]) -> pd.DataFrame:
    """A row per (dataset, category, split, seed, baseline) as `ablations.summary` has them, in percent, with the PRO of
    200 thresholds, the images seen in training, those that the baseline's paper asks for, and a word of
    `ranking.TRAINING`.
    """
    prepare(runs, names)
    rows = []
    for run in runs:
        for name in names:
            if is_for(run, name):
                rows.append(_row(run, name))
    return pd.DataFrame(rows, columns=None if rows else ["method", *BUDGET])


def keep_long(run: Run, name: str) -> None:
    """Note what the cache has of a long baseline in the table that outlives it."""
    numbers = read_json(_numbers(run, name))
    long_runs.keep(run, name, version_of(run, name), _row(run, name), numbers.get("minutes"))


def has_long(run: Run, name: str) -> bool:
    """Whether that table has a baseline's numbers on this run."""
    return long_runs.row(run, name, version_of(run, name)) is not None


def _row(run: Run, name: str) -> dict:
    columns = ablations.AS_REPORTED
    if _numbers(run, name).exists():
        numbers = read_json(_numbers(run, name))
        return ablations.row(run, title_of(name), numbers, columns) | {key: numbers[key] for key in BUDGET}
    kept = {"measured_pro_200": float("nan")} | long_runs.row(run, name, version_of(run, name))  # older rows lack it
    keys = ("dataset", "category", "split", "seed", "method", *(f"measured_{metric}" for metric in columns), *BUDGET)
    return {key: kept[key] for key in keys} | dict(method=title_of(name))


def papers_maps(config: Config) -> dict[str, dict]:
    """D3AD with the paper's maps, as a row of its own, where a profile has others: its name, and the settings changed.

    Lambda stays the profile's, unless the profile compares features in another way: its lambda was chosen for that, so
    the paper's is taken.
    """
    if config.feature_distance != "cosine":
        return {PAPERS_MAPS: dict(standardise=(), feature_distance="cosine", weight=Config.weight)}
    return {NOT_STANDARDISED: dict(standardise=())} if config.standardise else {}


def compared(workspace: Workspace, runs: list[Run], names: list[str]) -> pd.DataFrame:
    """D3AD, with noise and with the paper's maps, and the baselines on these runs, with averages and their spread over
    seeds.

    Where a dataset is split in two ways, the baselines are measured under the profile's own split only, for the time it
    takes.
    """
    own_split = [run for run in runs if run.split == workspace.study.split]
    variants = ablations.BENCHMARK | papers_maps(workspace.config)
    own = ablations.summary(workspace, variants, runs, columns=ablations.AS_REPORTED)
    frame = pd.concat([own, summary(own_split, names)], ignore_index=True)
    return marked(ablations.with_averages(frame)).astype(dict.fromkeys(BUDGET[:2], "Int64"))


def seed_runs(workspace: Workspace) -> list[Run]:
    """The runs that the baselines' spreads are taken over: those of D3AD, or of fewer categories where the profile says
    so.
    """
    chosen = workspace.study.baseline_spread_categories
    return [run for run in workspace.seed_runs() if not chosen or run.category in chosen]
