"""Experiments: what the notebooks share.  A workspace, its trained detectors and their cached outcomes.

Everything expensive is kept in the cache under a key of what it depends on: settings, data and `VERSION`.  So a notebook
asks for what it needs, and it is computed only once, by whichever notebook comes first.
"""
import dataclasses
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from d3ad import data, detector, metrics
from d3ad.autoencoders import LatentCodec
from d3ad.conditioning import knn_distances, pool_features
from d3ad.config import Config
from d3ad.data import synthetic
from d3ad.detector import D3AD, Prediction
from d3ad.features import FeatureExtractor

VERSION = 1  # raised when the model code computes something else, so that older caches are not used
ROOT = Path(__file__).resolve().parent.parent
STAND_IN = {"visa": "VisA-like", "btad": "BTAD-like", "mvtec": "MVTec-like"}
PUBLISHED = {"visa": "VisA", "btad": "BTAD", "mvtec": "MVTec AD", "mtd": "Magnetic tiles"}
BENCHMARK = {
    "D3AD": {},
    "D3AD, fully noised": dict(omega=1.0),
}


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes, and with which settings."""

    config: Config
    data_root: Path | None
    out: Path | None
    opened: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def cache(self) -> Path:
        return (self.out / "cache" if self.out else ROOT / ".cache") / self.name

    @property
    def figures(self) -> Path:
        return (self.out or ROOT) / "figures" / self.name

    @property
    def results(self) -> Path:
        return (self.out or ROOT) / "results" / self.name

    def targets(self) -> list[tuple[str, str]]:
        """Every (dataset, category) of the profile, in its order."""
        found = [(name, category) for name in self.config.datasets for category in self.categories(name)]
        return [(n, c) for n, c in found if not self.config.categories or c in self.config.categories]

    def categories(self, name: str) -> tuple[str, ...]:
        """The categories of one dataset."""
        return synthetic.CATEGORIES[name] if self.config.source == "drawn" else data.categories(name, self.data_root)

    def title(self, name: str) -> str:
        """What tables call a dataset: a stand-in never carries the name of the dataset that it stands in for."""
        return (STAND_IN if self.config.source == "drawn" else PUBLISHED)[name]

    def runs(self, **options) -> list["Run"]:
        """A run for each target."""
        return [self.run(name, category, **options) for name, category in self.targets()]

    def run(self, name: str, category: str, seed: int | None = None, split: str | None = None) -> "Run":
        """One category under one seed."""
        config = self.config.replace(seed=self.config.seed if seed is None else seed, split=split or self.config.split)
        return Run(self, config, name, category)


def open_workspace(profile: str = "", data_root: str = "", out: str = "", **changes) -> Workspace:
    """The workspace of a profile.  Empty arguments fall back to D3AD_PROFILE, D3AD_DATA_ROOT, D3AD_OUT, then to the demo
    profile and the repository's own folders.

    Raises ValueError for an unknown profile, or a profile on real data without a data root.
    """
    config = Config.profile(profile or os.environ.get("D3AD_PROFILE") or "demo", **changes)
    data_root, out = data_root or os.environ.get("D3AD_DATA_ROOT"), out or os.environ.get("D3AD_OUT")
    if config.source == "disk" and not data_root:
        raise ValueError(f"the {config.name} profile needs the real dataset {', '.join(config.datasets)}: set data_root to "
                         "the folder that holds it")
    return Workspace(config, Path(data_root).expanduser().resolve() if data_root else None,
                     Path(out).expanduser().resolve() if out else None)


@dataclass(frozen=True)
class Run:
    """One category, one seed: its data, its trained detector, and what the detector says of the test images."""

    workspace: Workspace
    config: Config
    name: str
    category: str

    def __str__(self) -> str:
        return f"{self.workspace.title(self.name)} {self.category}"

    @cached_property
    def dataset(self) -> data.Dataset:
        """Read from disk; stand-ins are drawn first."""
        root = self.workspace.data_root
        if self.config.source == "drawn":
            root = drawn_root(self.workspace, self.config)
            synthetic.write(root, self.name, self.category, *self.config.drawn_counts, seed=self.config.seed)
        options = dict(split=self.config.split, seed=self.config.seed) if self.name == "mtd" else {}
        return data.load(self.name, root, self.category, **options)

    @cached_property
    def labels(self) -> Tensor:
        """(N,) 1 = anomalous."""
        return self.dataset.labels("test")

    @cached_property
    def masks(self) -> Tensor:
        """(N, H, W) bool."""
        return self.dataset.masks("test", self.config.image_size)

    @cached_property
    def images(self) -> Tensor:
        """Test images (N, 3, H, W) in [-1, 1]."""
        return self.dataset.images("test", self.config.image_size)

    @cached_property
    def key(self) -> str:
        """Of everything that the trained detector depends on."""
        unrelated = {"name", "device", "seeds", "categories", "datasets", "predict_batch", "normalisation"}
        names = [f.name for f in dataclasses.fields(Config) if f.name not in unrelated]
        parts = [str(VERSION), self.config.hash(*names), self.dataset.fingerprint(), *map(str, self.workspace.targets())]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]

    @cached_property
    def folder(self) -> Path:
        return self.workspace.cache / f"{self.name}-{self.category}-{self.key}"

    @cached_property
    def detector(self) -> D3AD:
        """The trained detector, from the cache where it lies there."""
        saved = self.folder / "detector"
        if not saved.exists():
            codec, backbone, losses = shared_parts(self)
            fitted = D3AD(self.config).fit(self.dataset, self.folder / "training", codec, backbone)
            fitted.losses = losses | fitted.losses
            fitted.save(saved)
        return D3AD.load(saved, self.config.device)

    def outcome(self, **changes) -> "Outcome":
        """Scores, maps and metrics on the test images, with settings changed as in `D3AD.variant`; cached."""
        settings = self.config.replace(**changes)
        file = self.folder / f"outcome-{settings.hash()}.safetensors"
        if not file.exists():
            detector = self.detector.variant(**changes) if changes else self.detector
            started = time.perf_counter()
            prediction = detector.predict(self.images, progress=True)
            seconds = (time.perf_counter() - started) / len(prediction)
            for_tables = detector.renormalised(prediction, self.config.normalisation)
            Outcome(prediction, evaluate(for_tables, self.labels, self.masks), seconds).save(file)
        return Outcome.load(file)


@dataclass
class Outcome:
    """A prediction, its metrics (fractions) under the profile's normalisation, and the seconds it took per image."""

    prediction: Prediction
    metrics: dict[str, float]
    seconds: float

    def save(self, file: Path) -> None:
        """Maps as float16 and images as bytes, which is all that figures need; the metrics came from float32."""
        tensors = {f.name: getattr(self.prediction, f.name) for f in dataclasses.fields(Prediction) if f.name != "threshold"}
        tensors["reconstruction"] = ((tensors["reconstruction"] + 1) * 127.5).round().byte()
        for name in ("anomaly_map", "latent_map", "feature_map"):
            tensors[name] = tensors[name].half()
        about = dict(metrics=self.metrics, seconds=self.seconds, threshold=self.prediction.threshold)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, metadata={"about": json.dumps(about)})
        part.rename(file)

    @classmethod
    def load(cls, file: Path) -> "Outcome":
        with safe_open(file, "pt") as stored:
            about = json.loads(stored.metadata()["about"])
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}
        tensors["reconstruction"] = tensors["reconstruction"].float() / 127.5 - 1
        tensors = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
        return cls(Prediction(threshold=about["threshold"], **tensors), about["metrics"], about["seconds"])


def evaluate(prediction: Prediction, labels: Tensor, masks: Tensor) -> dict[str, float]:
    """I-AUROC, P-AUROC and PRO of a prediction, as fractions."""
    return dict(i_auroc=metrics.image_auroc(prediction.score, labels), p_auroc=metrics.pixel_auroc(prediction.anomaly_map, masks),
                pro=metrics.pro(prediction.anomaly_map, masks))


def drawn_root(workspace: Workspace, config: Config) -> Path:
    """Where the stand-ins of one seed lie."""
    return workspace.cache / f"drawn-{config.seed}"


def shared_parts(run: Run) -> tuple[LatentCodec, FeatureExtractor, dict]:
    """Autoencoder and feature extractor, trained once on all categories' normal images where they have no weights.

    They stand in for networks that the paper takes pretrained on other data; each detector adapts its own copy of the
    feature extractor.  Returns (codec, backbone, losses).
    """
    workspace, config, losses = run.workspace, run.config, {}
    images, fingerprints = None, ()
    if "none" in (config.autoencoder_weights, config.backbone_weights):
        siblings = workspace.runs(seed=config.seed, split=config.split)
        fingerprints = tuple(sibling.dataset.fingerprint() for sibling in siblings)
        images = _training_images(tuple(siblings))
    names = [f.name for f in dataclasses.fields(Config) if f.name.startswith(("autoencoder", "backbone", "pretrain"))]
    key = config.hash("seed", "image_size", "latent_channels", "batch_size", "adapt_blocks", *names)
    key = hashlib.sha256("|".join([str(VERSION), key, *fingerprints]).encode()).hexdigest()[:12]
    folder, device = workspace.cache / f"shared-{key}", detector.pick_device(config.device)
    codec = detector.fit_codec(images, config, folder / "autoencoder", device, losses)
    backbone = detector.fit_backbone(images, config, folder / "features", device, losses)
    return codec, backbone, losses


@lru_cache(maxsize=1)
def _training_images(runs: tuple[Run, ...]) -> Tensor:
    """Normal images of all runs, as many of each."""
    images = [run.dataset.images("train", run.config.image_size) for run in runs]
    return torch.cat([detector.every_nth(part, min(map(len, images))) for part in images])


def backbones(run: Run) -> dict[str, FeatureExtractor]:
    """The feature extractor as it started, as the shared training left it, and as Eq. 10 adapted it."""
    config, (_, shared, _) = run.config, shared_parts(run)
    found = {"hub weights": shared}
    if config.backbone_weights == "none":
        random = detector.fit_backbone(None, config.replace(pretrain_steps=0), None, run.detector.device, {})
        found = {"random weights": random, "trained on normal images": shared}
    return found | {"adapted (Eq. 10)": run.detector.backbone}


def dic_sight(run: Run) -> list[dict]:
    """How well the distance of Algorithm 2 alone tells anomalous images, with each stage of the features: rows of I-AUROC; cached.

    `block` is the ResNet's; `pooling` "mean" is the authors' 16 x 16 average, "maximum" one maximum per channel.
    """
    def features(images: Tensor, backbone: FeatureExtractor) -> dict:
        found: dict = {(block, pooling): [] for block in (2, 3) for pooling in ("mean", "maximum")}
        with torch.no_grad():
            for batch in images.split(run.config.predict_batch):
                blocks = backbone(batch.to(run.detector.device))
                for block, pooling in found:
                    y = blocks[block]
                    found[block, pooling].append(pool_features(y).cpu() if pooling == "mean" else y.amax((2, 3)).cpu())
        return {key: torch.cat(parts) for key, parts in found.items()}

    file = run.folder / "dic-sight.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    rows, train_images = [], run.dataset.images("train", run.config.image_size)
    for name, backbone in backbones(run).items():
        train, test = features(train_images, backbone), features(run.images, backbone)
        for block, pooling in train:
            distance = knn_distances(test[block, pooling], train[block, pooling], run.config.k).mean(1)
            rows.append(dict(dataset=run.workspace.title(run.name), category=run.category, features=name, block=block,
                             pooling=pooling, measured_i_auroc=100 * metrics.image_auroc(distance, run.labels)))
    part = file.with_suffix(".part")
    part.write_text(json.dumps(rows), encoding="utf-8")
    part.replace(file)
    return rows


def summary(workspace: Workspace, variants: dict[str, dict], runs: list[Run] | None = None) -> pd.DataFrame:
    """One row per (dataset, category, split, seed, method), metrics in percent."""
    rows = []
    for run in runs or workspace.runs():
        for method, changes in variants.items():
            outcome = run.outcome(**changes)
            rows.append(dict(dataset=workspace.title(run.name), category=run.category, split=run.config.split,
                             seed=run.config.seed, method=method,
                             **{f"measured_{k}": 100 * v for k, v in outcome.metrics.items()}))
    return pd.DataFrame(rows)


def with_averages(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `summary` and, behind each dataset and split, its means over categories and seeds as "Average".

    `spread_*` is the standard deviation of the categories' mean over seeds, empty where there is one seed.  Where there
    are several stand-in datasets, "all stand-ins" averages over all their categories.
    """
    values = [c for c in frame if c.startswith("measured_")]

    def average(rows: pd.DataFrame, **names) -> pd.DataFrame:
        per_seed = rows.groupby(["method", "seed"], sort=False)[values].mean()
        mean, spread = (getattr(per_seed.groupby("method", sort=False), how)() for how in ("mean", "std"))
        spread.columns = [c.replace("measured_", "spread_") for c in values]
        return mean.join(spread).reset_index().assign(category="Average", **names)

    parts = []
    for (dataset, split), rows in frame.groupby(["dataset", "split"], sort=False):
        parts += [rows, average(rows, dataset=dataset, split=split)]
    if frame["dataset"].nunique() > 1:
        parts.append(average(frame, dataset="all stand-ins", split=frame["split"].iloc[0]))
    return pd.concat(parts, ignore_index=True).astype({"seed": "Int64"})


def table4(config: Config) -> dict[str, dict]:
    """The settings that Table 4 compares, under the paper's names: fixed quarters of T_max, and the dynamic step."""
    quarters = {f"{25 * i}% ({20 * i})": dict(dynamic=False, t_max=round(config.t_max * i / 4)) for i in (1, 2, 3, 4)}
    return {**quarters, "DIC": {}}


def benchmark(workspace: Workspace) -> pd.DataFrame:
    """D3AD against itself with noise and with a fixed step: every seed, for the magnetic tiles under both splits."""
    seeds = range(workspace.config.seed, workspace.config.seed + workspace.config.seeds)
    splits = ("random", "by_tile") if "mtd" in workspace.config.datasets else (workspace.config.split,)
    runs = [run for seed in seeds for split in splits for run in workspace.runs(seed=seed, split=split)]
    return with_averages(summary(workspace, BENCHMARK, runs))


def method_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over all categories and seeds, a row per method."""
    single = frame[frame["category"] != "Average"]
    return single.groupby("method", sort=False)[[c for c in frame if c.startswith("measured_")]].mean()
