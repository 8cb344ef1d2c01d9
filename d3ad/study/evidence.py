"""What the claims are tested on: each number of a run with a thousand draws of what it might have been.

An array of values (1 + D,) holds the estimate first and D bootstrap draws behind it (`resampling`).  Draws of different
methods on the same images belong together, so a difference is taken draw by draw: it is paired.
"""
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from d3ad import detector, metrics
from d3ad.baselines import baseline_class, title_of
from d3ad.data.apart import set_apart
from d3ad.infra.files import load_tensors, save_tensors
from d3ad.study import ablations, comparison, looks, ranking, resampling
from d3ad.study.costs import sizes
from d3ad.study.jobs import prepare
from d3ad.study.outcome import AREAS
from d3ad.study.settings import training_in_words
from d3ad.study.workspace import Run, Workspace

Key = tuple[str, str, int]  # dataset, category, seed
PERCENT = (*ablations.METRICS, "pro_small", "pro_medium", "pro_large")
SCALED_CHANGE, NOISED_CHANGE, BINS = "change, scaled", "change, noised", "bins"


@dataclass(frozen=True)
class Effect:
    """A number with its draws, in the claim's unit, and what it rests on."""

    values: np.ndarray         # (1 + D,)
    keys: tuple[Key, ...] = ()  # the runs
    units: str = ""            # what was resampled, where it isn't the runs' images
    note: str = ""             # what the claim leaves open and this run decided, in words

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "Effect":
        """The effect with its values changed."""
        return replace(self, values=function(self.values))


@dataclass
class Evidence:
    """Numbers with their draws: method, then run, then metric (in percent).

    units: names of what is independent in each run's test images.  undertrained: baselines that got less training than
    their papers ask for.  narrowed: those whose networks are narrower than their papers'.  fixed: metric to the fixed
    step that was best on validation.  speed: of `method_costs.speed`.  timed: on what, in words.  settings: of the
    profile, in words.  noun: what a unit is.  baselines: the names of those that the profile measures, and no others.
    """

    numbers: dict[str, dict[Key, dict[str, np.ndarray]]]
    units: dict[Key, list[str]] = field(default_factory=dict)
    undertrained: frozenset[str] = frozenset()
    narrowed: frozenset[str] = frozenset()
    fixed: dict[str, str] = field(default_factory=dict)
    speed: pd.DataFrame | None = None
    timed: str = ""
    settings: str = ""
    noun: str = "image"
    baselines: tuple[str, ...] = ()

    @property
    def weakened(self) -> frozenset[str]:
        """The baselines over which a lead proves nothing: they lack training or width."""
        return self.undertrained | self.narrowed

    def gain(self, better: str, worse: str, metric: str, dataset: str | None = None) -> Effect | None:
        """How far one method is ahead of another in a metric, in points, over the runs that have both."""
        return self.combined(lambda a, b: a - b, [(better, metric), (worse, metric)], dataset)

    def combined(self, function: Callable[..., np.ndarray], names: list[tuple[str, str]],
                 dataset: str | None = None) -> Effect | None:
        """A function of several (method, metric) in each run, averaged; None where no run has them all.

        Averaged over seeds first, then over categories, each of which counts the same.  dataset: only its runs.
        """
        if any(method not in self.numbers for method, _ in names):
            return None
        shared = [key for key in self.numbers[names[0][0]] if all(key in self.numbers[method] for method, _ in names)
                  and dataset in (None, key[0])]
        per_run = {key: function(*(self.numbers[method][key][metric] for method, metric in names)) for key in shared}
        return averaged({key: values for key, values in per_run.items() if np.isfinite(values).all()})

    def on_common_runs(self, names: list[tuple[str, str]]) -> "Evidence":
        """The evidence of those runs alone in which each of these (method, metric) has a number: what is compared must
        rest on the same categories.
        """
        def is_complete(key: Key) -> bool:
            found = [self.numbers.get(method, {}).get(key, {}).get(metric) for method, metric in names]
            return all(values is not None and np.isfinite(values).all() for values in found)

        return replace(self, numbers={method: {key: values for key, values in runs.items() if is_complete(key)}
                                      for method, runs in self.numbers.items()})

    def count(self, effect: Effect) -> str:
        """The independent units behind an effect, in words."""
        if effect.units:
            return effect.units
        names = {name for key in effect.keys for name in self.units.get(key, [])}
        categories = len({key[:2] for key in effect.keys})
        return f"{len(names)} {self.noun}s, {categories} categor{'y' if categories == 1 else 'ies'}"


def averaged(per_run: dict[Key, np.ndarray]) -> Effect | None:
    """The mean over categories of the mean over seeds; None of nothing."""
    of_category: dict[tuple[str, str], list[np.ndarray]] = {}
    for (dataset, category, _), values in per_run.items():
        of_category.setdefault((dataset, category), []).append(values)
    if not of_category:
        return None
    means = [resampling.over_seeds(np.stack(values), "/".join(name)) for name, values in of_category.items()]
    return Effect(np.mean(means, 0), tuple(per_run))


def extreme(effects: Iterable[Effect | None], which: Callable = np.min) -> Effect | None:
    """The least (or with np.max the largest) of several effects, draw by draw; None where one is missing."""
    effects = list(effects)
    if not effects or any(effect is None for effect in effects):
        return None
    return Effect(which([effect.values for effect in effects], 0), effects[0].keys)


def over_rounds(per_round: np.ndarray, name: str) -> Effect:
    """The mean of numbers (R,) of rounds of timing, with draws of R - 1 of the R rounds."""
    values = np.repeat(np.asarray(per_round, dtype=float)[:, None], 1 + resampling.DRAWS, 1)
    return Effect(resampling.over_seeds(values, name), units=f"{len(per_round)} rounds")


# --- from runs

def key_of(run: Run) -> Key:
    """Dataset as tables call it, category, seed."""
    return run.workspace.title(run.name), run.category, run.config.seed


def draws_of(counts: resampling.Counts, numbers: dict, weights: np.ndarray, units: list[str]) -> dict[str, np.ndarray]:
    """Each of PERCENT, and pro_200, in percent, (1 + D,): the exact number first, the draws moved to it.

    units: the name of what is independent in each image (N,).
    The move takes out what the bins change.  The draws of pro_200 are the exact PRO's, moved.  Where units are few the
    draws are widened, by the number of the rarer kind, good or anomalous.
    """
    rarer = min(len({unit for unit, label in zip(units, counts.label) if label == kind}) for kind in (0, 1))
    drawn = counts.draws(np.concatenate([np.ones((1, weights.shape[1])), weights]), AREAS)
    found = {}
    for name in (*PERCENT, "pro_200"):
        values, exact = drawn["pro" if name == "pro_200" else name], numbers.get(name)
        exact = np.nan if exact is None else exact
        moved = np.concatenate([[exact], values[1:] + exact - values[0]])
        found[name] = 100 * resampling.widened(moved, rarer)
    return found


def kept_draws(outcome: Path, numbers: dict, draw: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The draws of a method on a run, from the file beside its outcome; `draw` computes them where it is not there, or
    of an outcome with other numbers.
    """
    file = outcome.with_suffix(f".draws-{resampling.VERSION}.safetensors")
    if file.exists():
        kept, of_numbers = load_tensors(file)
        if of_numbers == numbers:
            return {name: tensor.numpy() for name, tensor in kept.items()}
    drawn = draw()
    save_tensors(file, {name: torch.from_numpy(values) for name, values in drawn.items()}, numbers)
    return drawn


def _draws_of_run(run: Run, weights: np.ndarray, settings: dict) -> dict[str, np.ndarray]:
    return draws_of(run.counts(**settings), run.numbers(**settings), weights, run.units)


def _draws_of_baseline(run: Run, weights: np.ndarray, name: str) -> dict[str, np.ndarray]:
    said = comparison.outcome(run, name)
    maps, masks = (said.prediction.anomaly_map, run.masks) if run.has_masks else (None, None)
    return draws_of(resampling.count(said.prediction.score, run.labels, maps, masks), said.metrics, weights, run.units)


def weighted_mean(per_image: np.ndarray, weights: np.ndarray, units: list[str]) -> np.ndarray:
    """The mean (1 + D,) of a number per image (N,): plain first, then under weights (D, N).  units: see `draws_of`."""
    drawn = np.concatenate([[per_image.mean()], weights @ per_image / weights.sum(1)])
    return resampling.widened(drawn, len(set(units)))


def variants(workspace: Workspace, fixed: dict[str, str]) -> dict[str, dict]:
    """The settings that the claims compare; fixed: metric to the name of the best fixed step."""
    config = workspace.config
    steps = {name: changes for name, changes in ablations.table4(config).items()
             if name in {*fixed.values(), *ablations.NAMED_STEPS}}
    return {"D3AD": {}, **ablations.table5(config), **steps,
            "eta = 0": dict(guidance=0.0), "eta = 7": dict(guidance=7.0)}


def gather(workspace: Workspace, names: list[str], speed: pd.DataFrame | None = None) -> Evidence:
    """The evidence of a profile; computes what the cache lacks.

    names: the baselines to compare with; each stands under its title, so no claim on DDAD is tested on what is only
    like it.  speed: of `method_costs.speed` on the first of the profile's runs.
    """
    runs = workspace.ledger_runs()
    fixed = ablations.better_fixed(looks.steps_on_validation(workspace))
    compared = variants(workspace, fixed)
    every = {f"omega {omega}": dict(omega=omega) for omega in ablations.OMEGAS[::2]}
    prepare(runs, [*compared.values(), *every.values()])
    found = Evidence({}, fixed=fixed, speed=speed, settings=in_words(workspace), baselines=tuple(names),
                     timed="" if speed is None else timing_in_words(workspace.runs()[0], speed),
                     narrowed=frozenset(name for name in names if workspace.study.baseline_width < 1
                                        and baseline_class(name).on_pixels),
                     noun="tile" if "mtd" in workspace.study.datasets else "image")
    beside = [run for run in runs if _with_baselines(run)]
    comparison.prepare(beside, names)
    changes = looks.changes_of_good_images(workspace, runs)
    for run in runs:
        key, weights = key_of(run), resampling.unit_weights(run.units)
        found.units[key] = run.units

        def keep(method: str, values: dict[str, np.ndarray], key: Key = key) -> None:
            found.numbers.setdefault(method, {})[key] = values

        for method, settings in {**compared, **every}.items():
            keep(method, kept_draws(run.file(settings), run.numbers(**settings),
                                    partial(_draws_of_run, run, weights, settings)))
        for name in [name for name in names if run in beside and comparison.has_maps(run, name)]:
            keep(title_of(name), kept_draws(comparison.file_of(run, name), comparison.numbers(run, name),
                                            partial(_draws_of_baseline, run, weights, name)))
        keep(BINS, _bins(run, weights))
        for method, how in ((SCALED_CHANGE, "scaled"), (NOISED_CHANGE, "noised")):
            rows = changes[(changes["category"] == run.category) & (changes["seed"] == run.config.seed)
                           & (changes["method"] == how)]
            per_image = rows.groupby("image")["change"].mean().to_numpy()
            good = np.flatnonzero(run.labels.numpy() == 0)[:len(per_image)]
            keep(method, {"change": weighted_mean(per_image, weights[:, good], [run.units[i] for i in good])})
    if names and beside:
        found.undertrained = undertrained(comparison.summary(beside, names))
    return found


def _with_baselines(run: Run) -> bool:
    """Whether the baselines are measured on a run: on every category under the profile's seed, on those that the
    profile names under others.
    """
    workspace = run.workspace
    chosen = workspace.study.baseline_spread_categories
    return run.config.seed == workspace.config.seed or not chosen or run.category in chosen


def undertrained(rows: pd.DataFrame) -> frozenset[str]:
    """The baselines of `comparison.summary` that got less training than their papers ask for."""
    return frozenset(rows.loc[rows["training"] == ranking.SHORT, "method"])


def _bins(run: Run, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Mean bins of Algorithm 2 without self-inclusion (`looks.bins_of`), and the distance's own I-AUROC."""
    distance = run.distances()
    train, test = (bins.numpy().astype(float) for bins in looks.bins_of(run, include_self=False))
    kept = set_apart(torch.arange(len(run.dataset.train)), run.config.calibration_share)[0]
    names = run.units_of([run.dataset.train[i] for i in kept])
    auroc = {"i_auroc": metrics.image_auroc(distance, run.labels)}

    def of_kind(kind: int) -> np.ndarray:
        index = np.flatnonzero(run.labels.numpy() == kind)
        return weighted_mean(test[index], weights[:, index], [run.units[i] for i in index])

    return dict(train=weighted_mean(train, resampling.unit_weights(names), names),
                test=weighted_mean(test, weights, run.units), good=of_kind(0), anomalous=of_kind(1),
                distance=draws_of(resampling.count(distance, run.labels), auroc, weights, run.units)["i_auroc"])


def in_words(workspace: Workspace) -> str:
    """What a verdict of this profile rests on besides the data: pixels, networks and their training, another distance
    than the paper's, lambda, eta.
    """
    config, study = workspace.config, workspace.study
    features, autoencoder = ("trained here" if weights == "none" else "pretrained"
                             for weights in (config.backbone_weights, config.autoencoder_weights))
    compared = "" if config.feature_distance == "cosine" else f", compared by {config.feature_distance.title()}"
    parts = [f"{config.image_size} pixels",
             f"UNet of {sizes(config).weights['UNet'] / 1e6:.1f} M weights ({training_in_words(config, study)})",
             f"features of {config.backbone.split('.')[0]} ({features}{compared})",
             f"autoencoder {config.autoencoder} ({autoencoder})",
             *(f"{name} by category" if study.differs_by_category(field) else f"{name} {getattr(config, field):g}"
               for name, field in (("lambda", "weight"), ("eta", "guidance"))), study.label]
    return ", ".join(filter(None, parts))


def timing_in_words(run: Run, speed: pd.DataFrame) -> str:
    """What the times of `method_costs.speed` were taken on: images, threads, kind of device."""
    batch, threads = (int(speed[name].iloc[0]) for name in ("batch_size", "threads"))
    device = detector.pick_device(run.config.device).type.upper().replace("CUDA", "GPU")
    return f"{batch} images of {run} at once, {device}, {threads} thread{'s' * (threads > 1)}"


def memory(workspace: Workspace) -> pd.DataFrame:
    """What a random split of the magnetic tiles adds to a split by tile: D3AD's numbers under both, and their
    difference with a 95 % interval over tiles.  It is memory: the tiles of the test were seen in training.

    Columns: metric, measured_random, measured_by_tile, effect, low, high, units.  Empty for other datasets.
    """
    if "mtd" not in workspace.study.datasets:
        return pd.DataFrame()
    fresh = [run for run in ablations.benchmark_runs(workspace)
             if run.config.seed not in workspace.study.tuning_seeds]
    prepare(fresh, [{}])
    found: dict[str, dict[Key, dict]] = {}
    for run in fresh:
        drawn = kept_draws(run.file({}), run.numbers(),
                           partial(_draws_of_run, run, resampling.unit_weights(run.units), {}))
        found.setdefault(run.split, {})[key_of(run)] = drawn
    units: dict[Key, list[str]] = {}
    for run in fresh:  # those of both splits
        units.setdefault(key_of(run), []).extend(run.units)
    evidence = Evidence(found, units, noun="tile")
    rows = []
    for metric in ablations.METRICS:
        effect = evidence.gain("random", "by_tile", metric)
        low, high = np.quantile(effect.values[1:], (0.025, 0.975))
        means = {split: np.mean([v[metric][0] for v in found[split].values()]) for split in ("random", "by_tile")}
        rows.append(dict(metric=metric, measured_random=means["random"], measured_by_tile=means["by_tile"],
                         effect=effect.values[0], low=low, high=high, units=evidence.count(effect)))
    return pd.DataFrame(rows)
