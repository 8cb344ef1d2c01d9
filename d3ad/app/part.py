"""Parts of one's own: from photographs of good ones to a detector with a threshold and what it guarantees."""
import contextlib
import hashlib
import io
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import pandas as pd
import torch
from torch import Tensor

from d3ad import data, metrics
from d3ad.app import forecast
from d3ad.config import Config
from d3ad.data import Dataset, Sample, synthetic
from d3ad.data.apart import num_trained_on, set_apart
from d3ad.data.base import roomy
from d3ad.detector import D3AD, Prediction
from d3ad.features import FeatureExtractor
from d3ad.from_scratch import fit_backbone, fit_codec
from d3ad.infra.devices import pick_device
from d3ad.infra.parallel import num_workers
from d3ad.infra.processes import launched
from d3ad.speed import presets
from d3ad.study.workspace import VERSION, Workspace

EXAMPLE = ("mvtec", "button", 120, 30, 60)  # layout, drawing; training, good and anomalous test images
LONG = 100  # training steps from which on it is worth knowing how long they will take


def fit_part(good: Tensor, config: Config, held_out: float = 0.2, false_alarm_rate: float = 0.01,
             folder: Path | None = None, preset: str = "faithful") -> tuple[D3AD, int]:
    """Train on most of the good images, set the threshold on the others; say before how long it will take.

    good: (N, 3, H, W) in [-1, 1], H and W the config's image size.  held_out: the share that isn't trained on.
    folder: training states are kept there, each under a name of its settings and images; a fit that was stopped goes
    on.
    preset: how it will predict (d3ad/speed/presets.py); the threshold is set under it.
    Returns the detector and the number of images that it was trained on.
    Raises ValueError for too few images, FileNotFoundError for missing weights, both before the long work.
    """
    train, rest = split_off(good, held_out, config.seed)
    others = presets.replacements(config, preset)
    team = launched()
    if team.count > 1:
        print(f"{team.count} processes share every batch of {min(config.batch_size, len(train))}", flush=True)
    # a state goes on only with the images that it began with
    seen = hashlib.sha256(train.numpy()).hexdigest()[:12]
    folder, parts = folder and folder / f"{config.hash()}-{seen}", {}
    if sum(forecast.num_steps(config, len(train)).values()) >= LONG:
        at_once = team.count == 1 and num_workers(pick_device(config.device)) > 1
        print(f"training on {len(train)} images takes {forecast.rehearse(train, config, len(rest), at_once, team)}",
              flush=True)
        if at_once:
            parts = _codec_and_backbone(set_apart(train, config.calibration_share)[0], config, folder)
    detector = D3AD(config, team, presets.own_networks)
    detector.losses = parts.pop("losses", {})
    # in a folder `fit` finds their states; whether they were trained side by side may be otherwise when it goes on
    detector.fit(train, folder, **({} if folder else parts))
    detector = presets.apply(detector, preset, **others)
    detector.set_threshold(rest, false_alarm_rate)
    return detector, len(train)


def split_off(images: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide images (N, ...) at random into those to train on and a `share` to set the threshold on, at least one of
    each.

    Raises ValueError for fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} good image can't be divided into some to train on and some to set the "
                         "threshold on")
    count = num_held_out(len(images), share)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return tuple(torch.index_select(images, 0, index.sort().values,
                                    out=roomy(len(index), *images.shape[1:], dtype=images.dtype))
                 for index in (order[count:], order[:count]))


def num_held_out(number: int, share: float) -> int:
    """How many of so many images `split_off` sets apart: at least one, and not all."""
    return min(max(round(share * number), 1), number - 1)


def check_number(given: int, config: Config, held_out: float, where: str) -> None:
    """Raise ValueError where so many good images are too few, in terms of what was given; see `split_off`."""
    def trained_on(number: int) -> int:
        return num_trained_on(number - num_held_out(number, held_out), config.calibration_share)

    needed = config.k + (not config.include_self)
    if given >= 2 and trained_on(given) < needed:
        least = next(n for n in range(given, 10 * needed + 10) if trained_on(n) >= needed)
        others = given - trained_on(given)
        raise ValueError(f"{where}: {given} good images are too few: {others} set{'s' if others == 1 else ''} the "
                         f"threshold, and k = {config.k} takes {needed} to train on; give at least {least}, or lower k")


def _codec_and_backbone(images: Tensor, config: Config, folder: Path | None) -> dict:
    """Autoencoder and features, which don't need each other, at once: the features in a process beside this one."""
    losses: dict = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        beside = joblib.Parallel(n_jobs=2, return_as="generator")(
            [joblib.delayed(_features)(images, config, folder and folder / "features")])
        codec = fit_codec(images, config, folder and folder / "autoencoder", losses)
        backbone, of_features = next(beside)
    finally:
        torch.set_num_threads(threads)
    return dict(codec=codec, backbone=backbone, losses=losses | of_features)


def _features(images: Tensor, config: Config, folder: Path | None) -> tuple[FeatureExtractor, dict]:
    """The feature extractor and its losses, without a bar: the autoencoder's is seen."""
    torch.set_num_threads(1)
    losses: dict = {}
    with contextlib.redirect_stderr(io.StringIO()):
        return fit_backbone(images, config, folder, losses), losses


@dataclass(frozen=True)
class Parts:
    """Good parts to learn from and parts to inspect, as images (N, 3, H, W) in [-1, 1]."""

    good: Tensor
    new: Tensor
    samples: tuple[Sample, ...]  # of the new parts
    names: tuple[str, ...]       # their paths below their folder
    fingerprint: str             # of the good parts' dataset
    mask_threshold: int          # a mask's value above it is anomalous

    @property
    def labels(self) -> Tensor | None:
        """(N,) 1 = anomalous, for the new parts; None where nothing is known of them."""
        labels = torch.tensor([sample.label for sample in self.samples])
        return labels if labels.any() else None

    def mask(self, i: int) -> Tensor | None:
        """(H, W) bool, where new part i is anomalous; None where no mask says so."""
        sample = self.samples[i]
        return data.load_mask(sample.mask, self.new.shape[-1], self.mask_threshold) if sample.mask else None


def read(workspace: Workspace, good_folder: str = "", new_folder: str = "") -> Parts:
    """The parts in two folders, or an example for whoever has none at hand.

    good_folder: photographs of good parts, or a folder with `good` and one folder per defect, which can be inspected
    too.
    new_folder: photographs to inspect, all in it and below; where its folders' names say so, they are labelled.
    Warns of files that may be photographs and are left out.
    Raises ValueError where there is nothing to inspect but what is trained on.
    """
    dataset = data.load("folder", good_folder) if good_folder else example(workspace)
    inspected = _labelled(new_folder) if new_folder else dataset
    for read_one in [dataset] if inspected is dataset else [dataset, inspected]:
        data.warn_of_left_out(read_one)
    if not inspected.test:
        raise ValueError(f"{dataset.root} holds good parts only, and all are trained on: give new_folder, with parts "
                         "to inspect")
    size, samples = workspace.config.image_size, inspected.test
    names = tuple(sample.image.relative_to(inspected.root).as_posix() for sample in samples)
    return Parts(dataset.images("train", size), inspected.images("test", size, dataset.white), samples, names,
                 dataset.fingerprint(), inspected.mask_threshold)


def _labelled(folder: str) -> Dataset:
    """Every photograph in a folder and below as test images, with the labels and masks that its folders' names tell."""
    every = data.photographs(folder)
    try:
        known = data.load("folder", folder)
    except data.DataError as error:  # its names leave open what is good, or its files can't be read together
        print(f"{folder}: which of its parts are good is not known ({' '.join(str(error).split())})")
        return every
    samples = {sample.image: sample for sample in (*known.train, *known.test)}
    return replace(every, test=tuple(samples.get(sample.image, sample) for sample in every.test))


def example(workspace: Workspace) -> Dataset:
    """Drawn buttons, which no profile trains on, or a real dataset's first category.

    Raises ValueError where the profile names no dataset.
    """
    study, seed = workspace.study, workspace.config.seed
    if not study.datasets:
        raise ValueError(f"the {workspace.name} profile names no dataset: give good_folder, a folder of photographs of "
                         "good parts")
    if study.source == "disk":
        return workspace.run(*workspace.targets()[0]).dataset
    layout, drawing, *counts = EXAMPLE
    if workspace.name == "smoke":
        counts = study.counts
    root = workspace.cache / "own-synthetic"
    synthetic.write(root, layout, drawing, *counts, seed=seed)
    return data.load(layout, root, drawing)


def kept(workspace: Workspace, good: Tensor, held_out: float = 0.2, false_alarm_rate: float = 0.01) -> D3AD:
    """The detector of `fit_part` with the workspace's settings, from the cache where it lies there."""
    settings = f"{VERSION}|{workspace.config.hash()}|{held_out}|{false_alarm_rate}|"
    digest = hashlib.sha256(settings.encode())
    digest.update(good.contiguous().numpy())
    key = digest.hexdigest()[:12]
    folder = workspace.cache / f"own-{key}"
    if not (folder / "detector").exists():
        fit_part(good, workspace.config, held_out, false_alarm_rate, folder / "training")[0].save(folder / "detector")
        shutil.rmtree(folder / "training", ignore_errors=True)
    return presets.load(folder / "detector", workspace.config.device)


def scores(parts: Parts, prediction: Prediction) -> pd.DataFrame:
    """A row per new part: kind ("good" or its defect), anomalous, flagged, score in units of the threshold."""
    return pd.DataFrame(dict(kind=[sample.defect for sample in parts.samples],
                             anomalous=[sample.label == 1 for sample in parts.samples],
                             flagged=prediction.is_anomalous.numpy(),
                             score=(prediction.score / prediction.threshold).numpy()))


def by_kind(table: pd.DataFrame) -> pd.DataFrame:
    """How many parts of each kind are flagged, in percent, and their lowest and highest score; all defects; I-AUROC of
    all.

    table: of `scores`.  Columns kind, parts, flagged, lowest, highest, measured_i_auroc.
    """
    def summary(kind: str, rows: pd.DataFrame) -> dict:
        return dict(kind=kind, parts=len(rows), flagged=100 * rows["flagged"].mean(), lowest=rows["score"].min(),
                    highest=rows["score"].max())

    rows = [summary(kind, group) for kind, group in table.groupby("kind", sort=False)]
    whole = summary("all defects", table[table["anomalous"]])
    score, anomalous = (torch.tensor(table[column].to_numpy()) for column in ("score", "anomalous"))
    whole["measured_i_auroc"] = 100 * metrics.image_auroc(score, anomalous)
    return pd.DataFrame([*rows, whole])
