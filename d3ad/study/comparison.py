"""The baselines on the same images as D3AD: each is fitted once per run, and what it says is kept in the cache.

They share the run's data, image size, metrics and feature extractor; the diffusion baselines share its trained networks
too.
"""
import json
import statistics
import zlib
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch
from scipy.stats import studentized_range
from tqdm import tqdm

from d3ad.baselines import BASELINES, BaselinePrediction, Resources, baseline_class, check_installed, make
from d3ad.baselines.base import Budget
from d3ad.detector import D3AD
from d3ad.infra.files import load_tensors, save_tensors, write_whole
from d3ad.speed import presets
from d3ad.speed.timing import timed
from d3ad.study import ablations
from d3ad.study.outcome import evaluate
from d3ad.study.workspace import Run, Workspace, on_trained, shared_backbone, train

STEPS = ("steps", "steps_asked")
UNTRAINED = ("SPADE", "PaDiM", "PatchCore")  # they collect features; no gradient
PAPERS_MAPS = "D3AD, maps not standardised"  # where a profile standardises them, which is ours and no baseline has
VERSION = 2  # raised when a baseline computes something else


@dataclass
class BaselineOutcome:
    """What a baseline said of a run's test images, and the numbers of `evaluate` with steps and steps_asked."""

    prediction: BaselinePrediction
    metrics: dict[str, float | None]


def available(workspace: Workspace) -> list[str]:
    """The baselines of the profile whose packages are installed; prints a line for each one whose aren't."""
    installed = []
    for name in workspace.study.baselines:
        try:
            check_installed(name)
            installed.append(name)
        except ImportError as error:
            print(f"{name} is not measured: {error}")
    return installed


def left_out(names: list[str]) -> str:
    """A sentence on the paper's baselines that a profile doesn't measure, and why.  names: those that it measures."""
    trained = [name for name in BASELINES if name not in names and name not in UNTRAINED]
    others = [name for name in UNTRAINED if name not in names]
    parts = [f"{', '.join(group)} ({why})" for group, why in
             ((trained, "need training; measured in other profiles"), (others, "not in this profile's list")) if group]
    return f"Not measured in this profile: {'; '.join(parts)}." if parts else \
        "All of the paper's baselines are measured here."


def ahead(frame: pd.DataFrame, metric: str, own: str = "D3AD") -> list[str]:
    """The methods with a higher mean than `own` in a metric, best first.

    frame: of `overall`, in percent.  metric: "i_auroc", "p_auroc" or "pro".  Raises KeyError where `own` isn't in the
    frame.
    """
    values = frame.set_index("method")[f"measured_{metric}"]
    return values[values > values[own]].sort_values(ascending=False).index.tolist()


def _file(run: Run, name: str):
    settings = run.workspace.study.hash("baseline_steps", "baseline_width")
    return run.folder / f"baseline-{BASELINES[name][0]}-{VERSION}-{settings}.safetensors"


def _measure(run: Run, name: str) -> None:
    study = run.workspace.study
    budget = Budget(study.baseline_steps, study.baseline_width)
    baseline = make(name, Resources(run.config, shared_backbone(run, {}), run.detector, budget))
    images = run.normal_images
    baseline.fit(images)
    prediction = baseline.predict(run.images)
    numbers = evaluate(prediction, run.labels,
                       run.masks if run.has_masks else None) | dict(steps=baseline.num_steps(len(images)),
                                                                 steps_asked=baseline.steps_asked(len(images)))
    tensors = dict(score=prediction.score, anomaly_map=prediction.anomaly_map.half())
    if prediction.reconstruction is not None:
        tensors["reconstruction"] = ((prediction.reconstruction + 1) * 127.5).round().byte()
    file = _file(run, name)
    save_tensors(file, tensors, dict(metrics=numbers, threshold=prediction.threshold))
    write_whole(file.with_suffix(".json"), json.dumps(numbers))


def prepare(runs: list[Run], names: list[str]) -> None:
    """Measure what the cache lacks, in parallel."""
    on_trained("baselines", _measure,
               [(run, name) for run in runs for name in names if not _file(run, name).with_suffix(".json").exists()])


def outcome(run: Run, name: str) -> BaselineOutcome:
    """A baseline's scores, maps and metrics on the run's test images; cached."""
    prepare([run], [name])
    tensors, about = load_tensors(_file(run, name))
    tensors["anomaly_map"] = tensors["anomaly_map"].float()
    if "reconstruction" in tensors:
        tensors["reconstruction"] = tensors["reconstruction"].float() / 127.5 - 1
    return BaselineOutcome(BaselinePrediction(**tensors, threshold=about["threshold"]), about["metrics"])


def summary(runs: list[Run], names: list[str]) -> pd.DataFrame:
    """A row per (dataset, category, split, seed, baseline) as `sweeps.summary` has them, in percent, with the training
    steps that were done and those that the baseline's paper asks for.
    """
    prepare(runs, names)
    rows = []
    for run in runs:
        for name in names:
            numbers = json.loads(_file(run, name).with_suffix(".json").read_text(encoding="utf-8"))
            rows.append(ablations.row(run, name, numbers) | {key: numbers[key] for key in STEPS})
    return pd.DataFrame(rows, columns=None if rows else STEPS)


def compared(workspace: Workspace, runs: list[Run], names: list[str]) -> pd.DataFrame:
    """D3AD, with noise and with the paper's maps, and the baselines on these runs, with averages and their spread over
    seeds.

    Where a dataset is split in two ways, the baselines are measured under the profile's own split only, for the time it
    takes.
    """
    own_split = [run for run in runs if run.split == workspace.study.split]
    variants = ablations.BENCHMARK | ({PAPERS_MAPS: dict(standardise=False)} if workspace.config.standardise else {})
    frame = pd.concat([ablations.summary(workspace, variants, runs), summary(own_split, names)], ignore_index=True)
    return ablations.with_averages(frame).astype(dict.fromkeys(STEPS, "Int64"))


def seed_runs(workspace: Workspace) -> list[Run]:
    """The runs that the baselines' spreads are taken over: those of D3AD, or of fewer categories where the profile says
    so.
    """
    chosen = workspace.study.baseline_spread_categories
    return [run for run in workspace.seed_runs() if not chosen or run.category in chosen]


def overall(frame: pd.DataFrame, split: str = "random") -> pd.DataFrame:
    """One row per method: the mean of each metric over all categories and seeds under one split."""
    return ablations.method_means(frame[frame["split"] == split]).reset_index()


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per method: mean (`measured_*`) and standard deviation (`spread_*`) over seeds, of the same runs.

    seeds: rows of `compared`.  Its averages are taken as they are, so that a number read back from a rounded CSV file
    isn't computed, and rounded, a second time; without any, they are computed from the single rows.
    """
    single, averages = seeds[seeds["category"] != "Average"], seeds[seeds["category"] == "Average"]
    columns = [f"measured_{metric}" for metric in ablations.METRICS]
    if len(averages):
        whole = averages[averages["dataset"].str.startswith("all ")] if averages["dataset"].nunique() > 1 else averages
        return whole[["method", *columns, *(c.replace("measured_", "spread_") for c in columns)]].reset_index(drop=True)
    per_seed = single.groupby(["method", "seed"], sort=False)[columns].mean().groupby("method", sort=False)
    spread = per_seed.std().rename(columns=lambda name: name.replace("measured_", "spread_"))
    return per_seed.mean().join(spread).reset_index()


def as_text(frame: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """Rows of `overall` or `over_seeds` as text, "93.1" or "93.1 ± 0.4", best first by the last metric."""
    def text(row: pd.Series, metric: str) -> str:
        spread = row.get(f"spread_{metric}")
        return f"{row[f'measured_{metric}']:.1f}" + ("" if pd.isna(spread) else f" ± {spread:.1f}")

    frame = frame.sort_values(f"measured_{list(metrics)[-1]}", ascending=False)
    return pd.DataFrame([{"method": row["method"]} | {title: text(row, metric) for metric, title in metrics.items()}
                         for _, row in frame.iterrows()])


def mean_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean rank of each method over blocks, 1 = best: a row per method, a column per metric, and `blocks`, their
    number.

    frame: rows of `compared`.  A block is one run: a category, a split, a seed.  Only blocks that hold all methods
    count; ties share their mean rank.
    """
    single, block = frame[frame["category"] != "Average"], ["dataset", "category", "split", "seed"]
    whole = single.groupby(block)["method"].transform("nunique") == single["method"].nunique()
    columns = {f"measured_{metric}": metric for metric in ablations.METRICS}
    ranks = single[whole].groupby(block)[list(columns)].rank(ascending=False).rename(columns=columns)
    by_method = ranks.groupby(single["method"], sort=False)
    return by_method.mean().assign(blocks=by_method.size())


@lru_cache
def critical_difference(num_methods: int, num_blocks: int, alpha: float = 0.05) -> float:
    """How far two mean ranks must be apart to differ beyond chance (Nemenyi's test, Demsar 2006)."""
    # 1e6 stands for infinity, where scipy's takes a minute
    q = studentized_range.ppf(1 - alpha, num_methods, 1e6) / 2 ** 0.5
    return float(q * (num_methods * (num_methods + 1) / (6 * num_blocks)) ** 0.5)


def speed(run: Run, names: list[str]) -> pd.DataFrame:
    """What D3AD and the baselines cost on one batch of the run's test images, one after the other in this process;
    cached.

    A row per method and round: method, round, seconds (per image), megabytes, batch_size, threads.  The baselines are
    trained for one step only, which changes nothing in what a prediction costs.
    """
    methods = ["D3AD", *names]
    key = zlib.crc32("|".join(["2", run.config.hash("predict_batch"), run.workspace.study.hash("baseline_width"),
                               *methods]).encode())
    file = run.folder / f"speed-{key:08x}.json"
    if not file.exists():
        images, batch = run.normal_images, run.images[:run.config.predict_batch]
        train([run])
        config, budget = run.config.replace(calibration_images=2), Budget(1, run.workspace.study.baseline_width)

        def fresh() -> D3AD:  # the run's own remembers what it has looked at
            return presets.load(run.folder / "detector", run.config.device)

        builders = {"D3AD": lambda: fresh().predict}
        for name in names:
            baseline_class(name)  # imported before memory is counted
            builders[name] = lambda name=name: make(name,
                                                    Resources(config, shared_backbone(run, {}), fresh(),
                                                              budget)).fit(images).predict
        about, rows = dict(batch_size=len(batch), threads=torch.get_num_threads()), []
        for name in tqdm(methods, "time per image"):
            cost = timed(builders[name], batch)
            rows += [dict(method=name, round=i, seconds=seconds, megabytes=cost["megabytes"], **about)
                     for i, seconds in enumerate(cost["seconds"])]
        write_whole(file, json.dumps(rows))
    return pd.DataFrame(json.loads(file.read_text(encoding="utf-8")))


def table8(workspace: Workspace, measured: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Rows of Table 8 from `speed`: the median of the rounds as seconds per image, its inverse, memory."""
    rows = []
    for method, rounds in measured.groupby("method", sort=False):
        seconds = statistics.median(rounds["seconds"])
        rows.append(dict(dataset=workspace.title(dataset), category="Average", method=method, measured_fps=1 / seconds,
                         measured_seconds=seconds, measured_megabytes=rounds["megabytes"].iloc[0]))
    return pd.DataFrame(rows)
