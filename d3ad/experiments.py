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

import torch
from torch import Tensor

from d3ad import data, detector, metrics
from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.conditioning import assign_bins
from d3ad.config import NOT_D3AD, Config
from d3ad.data import synthetic
from d3ad.detector import D3AD, Prediction
from d3ad.features import FeatureExtractor
from d3ad.files import appearing, load_tensors, read_json, save_tensors, write_whole
from d3ad.images import every_nth
from d3ad.parallel import in_parallel

VERSION = 3  # raised when the model code computes something else, so that older caches are not used
ROOT = Path(__file__).resolve().parent.parent
STAND_IN = {"visa": "VisA-like", "btad": "BTAD-like", "mvtec": "MVTec-like"}
PUBLISHED = {"visa": "VisA", "btad": "BTAD", "mvtec": "MVTec AD", "mtd": "Magnetic tiles"}
RETRAINED = {"adapt_epochs", "adapt_loss", "adapt_learning_rate", "adapt_batch_norm"}  # what an outcome may change by adapting the features anew
SIZES = {"small": (0.0, synthetic.SMALL), "medium": (synthetic.SMALL, synthetic.MEDIUM), "large": (synthetic.MEDIUM, 1.0)}


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

    def seed_runs(self) -> list["Run"]:
        """The runs that spreads are taken over: each of `config.seeds` seeds on the categories meant for it."""
        chosen = self.config.spread_categories
        return [self.run(name, category, seed) for seed in range(self.config.seed, self.config.seed + self.config.seeds)
                for name, category in self.targets() if not chosen or category in chosen]

    def run(self, name: str, category: str, seed: int | None = None, split: str | None = None) -> "Run":
        """One category under one seed."""
        config = self.config.replace(seed=self.config.seed if seed is None else seed, split=split or self.config.split)
        return Run(self, config, name, category)


def open_workspace(profile: str = "", data_root: str = "", out: str = "", **changes) -> Workspace:
    """The workspace of a profile.  Empty arguments fall back to D3AD_PROFILE, D3AD_DATA_ROOT, D3AD_OUT, then to the demo
    profile and the repository's own folders.

    Settings can be tried without editing a profile: D3AD_SET holds them as JSON, such as {"t_max": 40}.  The profile is then
    called "demo-changed", so that its results stand in folders of their own.
    Raises ValueError for an unknown profile or setting, or a profile on real data without a data root.
    """
    try:
        tried = json.loads(os.environ.get("D3AD_SET") or "{}")
    except ValueError as error:
        raise ValueError(f'D3AD_SET must be JSON, such as {{"t_max": 40}} ({error})') from None
    if not isinstance(tried, dict):
        raise ValueError(f'D3AD_SET must be JSON with names, such as {{"t_max": 40}}; got {tried!r}')
    config = Config.profile(profile or os.environ.get("D3AD_PROFILE") or "demo", **{**tried, **changes})
    if tried:
        config = config.replace(name=f"{config.name}-changed")
    data_root, out = data_root or os.environ.get("D3AD_DATA_ROOT"), out or os.environ.get("D3AD_OUT")
    if config.source == "disk" and config.datasets and not data_root:
        raise ValueError(f"the {config.name} profile needs the real dataset {', '.join(config.datasets)}: set data_root to "
                         "the folder that holds it")
    if detector.pick_device(config.device).type == "cpu":
        torch.set_num_threads(1)
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
        unrelated = {*NOT_D3AD, "seeds", "spread_categories", "categories", "datasets", "predict_batch", "normalisation"}
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
            with appearing(saved) as part:
                fitted.write_parts(part)
        found = D3AD.load(saved, self.config.device)
        found.memory = {}  # variants look at the same test images again and again
        return found

    def numbers(self, **changes) -> dict[str, float | None]:
        """The metrics of `evaluate` with settings changed, and "seconds" per image, cached.

        changes: as in `D3AD.variant`, or those of `RETRAINED`.
        """
        file = self._file(changes).with_suffix(".json")
        if not file.exists():
            self._measure(changes, keep_maps=False)
        return read_json(file)

    def outcome(self, **changes) -> "Outcome":
        """Scores, maps and metrics on the test images, with settings changed as in `numbers`; cached."""
        file = self._file(changes)
        if not file.exists():
            self._measure(changes, keep_maps=True)
        return Outcome.load(file)

    def is_kept(self, changes: dict, maps: bool) -> bool:
        """Whether `outcome` (with `maps`) or `numbers` lies in the cache."""
        return self._file(changes).with_suffix(".safetensors" if maps else ".json").exists()

    def _file(self, changes: dict) -> Path:
        return self.folder / f"outcome-{self.config.replace(**changes).hash()}.safetensors"

    def _measure(self, changes: dict, keep_maps: bool) -> None:
        found = self.variant(**changes)
        started = time.perf_counter()
        prediction = found.predict(self.images)
        seconds = (time.perf_counter() - started) / len(prediction)
        for_tables = prediction if found.config.normalisation == "train" else found.renormalised(prediction, "test")
        numbers = evaluate(for_tables, self.labels, self.masks) | bins(found, prediction, self.labels) | {"seconds": seconds}
        file = self._file(changes)
        if keep_maps:
            Outcome(prediction, numbers).save(file)
        write_whole(file.with_suffix(".json"), json.dumps(numbers))

    def variant(self, **changes) -> D3AD:
        """The detector with settings changed, its features adapted anew where that is what changes."""
        if RETRAINED & set(changes):
            return self.detector.readapted(self.dataset.images("train", self.config.image_size), shared_backbone(self, {}), **changes)
        return self.detector.variant(**changes) if changes else self.detector


@dataclass
class Outcome:
    """A prediction and its metrics (fractions) under the profile's normalisation."""

    prediction: Prediction
    metrics: dict[str, float | None]

    def save(self, file: Path) -> None:
        """Maps as float16 and images as bytes, which is all that figures need; the metrics came from float32."""
        tensors = {f.name: getattr(self.prediction, f.name) for f in dataclasses.fields(Prediction) if f.name != "threshold"}
        tensors["reconstruction"] = ((tensors["reconstruction"] + 1) * 127.5).round().byte()
        for name in ("anomaly_map", "latent_map", "feature_map"):
            tensors[name] = tensors[name].half()
        save_tensors(file, tensors, dict(metrics=self.metrics, threshold=self.prediction.threshold))

    @classmethod
    def load(cls, file: Path) -> "Outcome":
        tensors, about = load_tensors(file)
        tensors["reconstruction"] = tensors["reconstruction"].float() / 127.5 - 1
        tensors = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
        return cls(Prediction(threshold=about["threshold"], **tensors), about["metrics"])


def evaluate(prediction: Prediction, labels: Tensor, masks: Tensor | None) -> dict[str, float | None]:
    """I-AUROC, P-AUROC and PRO of a prediction, as fractions; PRO of each size of region (None where there is none) and
    as commonly computed with 200 thresholds.  Without masks all but the first are None.
    """
    if masks is None:
        names = ("p_auroc", "pro", *(f"pro_{name}" for name in SIZES), "pro_200")
        return dict(i_auroc=metrics.image_auroc(prediction.score, labels)) | dict.fromkeys(names)
    found = dict(i_auroc=metrics.image_auroc(prediction.score, labels), p_auroc=metrics.pixel_auroc(prediction.anomaly_map, masks))
    areas = {"pro": (0.0, 1.0)} | {f"pro_{name}": area for name, area in SIZES.items()}
    return found | metrics.pro_by_area(prediction.anomaly_map, masks, areas) | {"pro_200": metrics.pro_200(prediction.anomaly_map, masks)}


def bins(found: D3AD, prediction: Prediction, labels: Tensor) -> dict[str, float]:
    """Mean bin of Algorithm 2 of training, good and anomalous test images; the distance's own I-AUROC."""
    dic = found.conditioning
    train, test = (assign_bins(distance, dic.edges).float() for distance in (dic.train_distances, prediction.distance))
    return dict(bin_train=float(train.mean()), bin_good=float(test[labels == 0].mean()), bin_anomalous=float(test[labels == 1].mean()),
                distance_auroc=metrics.image_auroc(prediction.distance, labels))


def drawn_root(workspace: Workspace, config: Config) -> Path:
    """Where the stand-ins of one seed lie."""
    return workspace.cache / f"drawn-{config.seed}"


def shared_parts(run: Run) -> tuple[LatentCodec, FeatureExtractor, dict]:
    """Autoencoder and feature extractor, trained once on all categories' normal images where they have no weights.

    They stand in for networks that the paper takes pretrained on other data; each detector adapts its own copy of the
    feature extractor.  All seeds of drawn data share those of the profile's own seed, as they would share pretrained ones;
    on real data each split has its own, which must not see what that split tests with.
    Returns (codec, backbone, losses).
    """
    losses: dict = {}
    return shared_codec(run, losses), shared_backbone(run, losses), losses


def shared_codec(run: Run, losses: dict) -> LatentCodec:
    """The first of `shared_parts`; its training losses go into `losses`."""
    config, folder, siblings = _shared(run)
    device = detector.pick_device(config.device)
    if config.autoencoder_weights != "none":
        return detector.fit_codec(None, config, None, device, losses)
    if not (folder / "codec").exists():
        found: dict = {}
        codec = detector.fit_codec(_training_images(siblings), config, folder / "autoencoder", device, found)
        with appearing(folder / "codec") as part:
            codec.model.save_pretrained(part / "autoencoder")
            write_whole(part / "losses.json", json.dumps(found))
    losses |= read_json(folder / "codec" / "losses.json")
    return load_autoencoder(config.autoencoder, str(folder / "codec" / "autoencoder")).to(device).eval().requires_grad_(False)


def shared_backbone(run: Run, losses: dict) -> FeatureExtractor:
    """The second of `shared_parts`; its training losses go into `losses`."""
    config, folder, siblings = _shared(run)
    device = detector.pick_device(config.device)
    if config.backbone_weights != "none":
        return detector.fit_backbone(None, config, None, device, losses)
    if not (folder / "backbone").exists():
        found: dict = {}
        backbone = detector.fit_backbone(_training_images(siblings), config, folder / "features", device, found)
        with appearing(folder / "backbone") as part:
            detector.save_part(part / "features", backbone.state_dict(), {"name": backbone.name})
            write_whole(part / "losses.json", json.dumps(found))
    losses |= read_json(folder / "backbone" / "losses.json")
    backbone = FeatureExtractor(config.backbone, "none").to(device)
    backbone.load_state_dict(detector.load_part(folder / "backbone" / "features"))
    return backbone.eval().requires_grad_(False)


def _shared(run: Run) -> tuple[Config, Path, tuple[Run, ...]]:
    """Settings and cache folder of the shared parts, and the runs whose normal images they are trained on."""
    workspace = run.workspace
    config = run.config.replace(seed=workspace.config.seed) if run.config.source == "drawn" else run.config
    siblings = tuple(workspace.run(*target, config.seed, config.split) for target in workspace.targets())
    names = [f.name for f in dataclasses.fields(Config) if f.name.startswith(("autoencoder", "backbone", "pretrain"))]
    key = config.hash("seed", "image_size", "crop_size", "latent_channels", "batch_size", "adapt_blocks", *names)
    fingerprints = _fingerprints(siblings) if "none" in (config.autoencoder_weights, config.backbone_weights) else ()
    key = hashlib.sha256("|".join([str(VERSION), key, *fingerprints]).encode()).hexdigest()[:12]
    return config, workspace.cache / f"shared-{key}", siblings


@lru_cache(maxsize=1)
def _fingerprints(runs: tuple[Run, ...]) -> tuple[str, ...]:
    return tuple(run.dataset.fingerprint() for run in runs)


@lru_cache(maxsize=1)
def _training_images(runs: tuple[Run, ...]) -> Tensor:
    """Normal images of all runs, as many of each."""
    images = [run.dataset.images("train", run.config.image_size) for run in runs]
    return torch.cat([every_nth(part, min(map(len, images))) for part in images])


def prepare(runs: list[Run], variants: list[dict], maps: bool = False) -> None:
    """Compute what the cache lacks of `numbers` (with `maps`: of `outcome`) for each run and variant, in parallel."""
    on_trained("measure", _measure, [(run, changes, maps) for run in runs for changes in variants if not run.is_kept(changes, maps)])


def on_trained(title: str, function, jobs: list[tuple]) -> None:
    """Call function(run, ...) for every job, in parallel, once the detectors of their runs are trained."""
    train(list({id(run): run for run, *_ in jobs}.values()))
    in_parallel(title, function, [(bare(run), *others) for run, *others in jobs])


def train(runs: list[Run]) -> None:
    """Train the detectors that the cache lacks, in parallel."""
    missing = [bare(run) for run in runs if not (run.folder / "detector").exists()]
    check_readable([run for run in missing if run.config.source == "disk"])
    folders = {_shared(run)[1]: run for run in missing}  # by the way, everything that will be read is drawn
    parts = [(run, part) for run in folders.values() for part in (shared_codec, shared_backbone)]
    in_parallel("train autoencoder and features", _share, parts)  # finished ones are only read again
    in_parallel("train detectors", _train, [(run,) for run in missing])


def check_readable(runs: list[Run]) -> None:
    """Read every image and mask of these runs' datasets, before hours of training; one DataError with all problems."""
    problems = {}
    for dataset in {str(run.dataset): run.dataset for run in runs}.values():
        for read, split in ((dataset.images, "train"), (dataset.images, "test"), (dataset.masks, "test")):
            try:
                read(split, 8)
            except data.DataError as error:
                problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        raise data.DataError("\n".join(problems))


def bare(run: Run) -> Run:
    """The run without what it has loaded, fit to travel to another process."""
    return dataclasses.replace(run)


def _share(run: Run, part) -> None:
    part(run, {})


def _train(run: Run) -> None:
    run.detector


def _measure(run: Run, changes: dict, maps: bool) -> None:
    run._measure(changes, keep_maps=maps)
