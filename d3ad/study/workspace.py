"""The workspace of a study: its runs, their trained detectors, and what is kept of them in the cache.

Everything expensive is kept in the cache under a key of what it depends on: settings, data and `VERSION`.  So a
notebook asks for what it needs, and it is computed only once, by whichever notebook comes first.
"""
import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from d3ad import data, detector
from d3ad.conditioning import DynamicConditioning
from d3ad.config import ADAPTATION, Config
from d3ad.data import mtd, synthetic
from d3ad.data.apart import set_apart
from d3ad.detector import D3AD
from d3ad.infra.checkpoint import read_settings, read_tensors
from d3ad.infra.files import ROOT, load_tensors, read_json, save_tensors, write_whole
from d3ad.infra.optimising import CHECKPOINT
from d3ad.infra.settings import MACHINE
from d3ad.metrics import image_auroc
from d3ad.speed.presets import own_networks
from d3ad.study import resampling
from d3ad.study.outcome import Outcome, evaluate
from d3ad.study.remembering import loaded
from d3ad.study.settings import Study, cache_folder, settings_hash, settings_of
from d3ad.study.shared import VERSION, key_parts, shared_backbone, shared_parts, shared_unet

# Settings of prediction whose change has the features adapted anew.  Eq. 10 sees t_max, num_steps and spacing, too:
# variants of those keep the profile's features, so that fixed steps, presets and grids are compared on the same phi.
SAMPLING = ("omega", "guidance", "second_sampler")
SYNTHETIC = {"visa": "VisA-like", "btad": "BTAD-like", "mvtec": "MVTec-like"}
PUBLISHED = {"visa": "VisA", "btad": "BTAD", "mvtec": "MVTec AD", "mtd": "Magnetic tiles", "elpv": "ELPV"}


@dataclass(frozen=True)
class Workspace:
    """Where a run reads and writes, and with which settings."""

    config: Config
    study: Study
    data_root: Path | None
    out: Path | None
    opened: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.config.name

    @property
    def cache(self) -> Path:
        """The folder of what was computed."""
        return cache_folder(self.out, self.name)

    @property
    def figures(self) -> Path:
        """The folder of the pictures."""
        return (self.out or ROOT) / "figures" / self.name

    @property
    def results(self) -> Path:
        """The folder of the tables."""
        return (self.out or ROOT) / "results" / self.name

    @property
    def settings_hash(self) -> str:
        """12 hex digits of all that numbers depend on, of the method and of the study."""
        return settings_hash(self.config, self.study)

    def targets(self) -> list[tuple[str, str]]:
        """Every (dataset, category) of the profile, in its order.

        Raises ValueError where `categories` names one that no dataset has.
        """
        chosen = self.study.categories
        every = [(name, category) for name in self.study.datasets for category in self.categories(name)]
        drawn = [category for names in synthetic.CATEGORIES.values() for category in names]
        known = list(dict.fromkeys(drawn if self.study.source == "synthetic" else [category for _, category in every]))
        if unknown := [category for category in chosen if category not in known]:
            raise ValueError(f"categories: no {', '.join(unknown)} (allowed: {', '.join(known)})")
        return [(name, category) for name, category in every if not chosen or category in chosen]

    def categories(self, name: str) -> tuple[str, ...]:
        """The categories of one dataset."""
        return synthetic.CATEGORIES[name] if self.study.source == "synthetic" else data.categories(name, self.data_root)

    def title(self, name: str) -> str:
        """What tables call a dataset: a synthetic one never carries the name of the dataset whose layout it has."""
        return (SYNTHETIC if self.study.source == "synthetic" else PUBLISHED)[name]

    def runs(self, **options) -> list["Run"]:
        """A run for each target."""
        return [self.run(name, category, **options) for name, category in self.targets()]

    def seed_runs(self) -> list["Run"]:
        """The runs that spreads are taken over: each of `study.seeds` seeds on the categories meant for it."""
        chosen = self.study.spread_categories
        return [self.run(name, category, seed) for seed in range(self.config.seed, self.config.seed + self.study.seeds)
                for name, category in self.targets() if not chosen or category in chosen]

    def ledger_runs(self) -> list["Run"]:
        """The runs that claims are tested on: every category under the profile's own seed, then the further seeds of
        `seed_runs`; without the seeds that were looked at while settings were chosen.

        Raises ValueError where no other is left.
        """
        fresh = [run for run in dict.fromkeys((*self.runs(), *self.seed_runs()))
                 if run.config.seed not in self.study.tuning_seeds]
        if not fresh:
            raise ValueError(f"{self.name}: seed {self.config.seed} is one of tuning_seeds, on which no claim is "
                             "tested; choose another seed")
        return fresh

    def run(self, name: str, category: str, seed: int | None = None, split: str | None = None) -> "Run":
        """One category under one seed, with the settings that the profile has for it."""
        config = self.config.replace(seed=self.config.seed if seed is None else seed,
                                     **self.study.per_category.get(category, {}))
        if self.study.start_steps:
            config = config.replace(train_steps=self.study.own_steps)
        if self.study.compared_checkpoints and config.calibration_share and config.seed == self.config.seed \
                and (name, category) == self.targets()[0]:
            config = config.replace(checkpoints=self.study.compared_checkpoints)  # for d3ad/study/checkpoints.py
        return Run(self, config, name, category, split or self.study.split)


def open_workspace(profile: str = "", data_root: str = "", out: str = "", **changes) -> Workspace:
    """The workspace of a profile.  Empty arguments fall back to D3AD_PROFILE, D3AD_DATA_ROOT, D3AD_OUT, then to the
    demo profile and the repository's own folders.

    On a CPU it has torch compute with one thread in this process: each worker takes a core.
    Raises ValueError for an unknown profile or setting (`settings_of`), or a profile on real data without a data root.
    """
    config, study = settings_of(profile or os.environ.get("D3AD_PROFILE") or "demo", **changes)
    data_root, out = data_root or os.environ.get("D3AD_DATA_ROOT"), out or os.environ.get("D3AD_OUT")
    if study.source == "disk" and study.datasets and not data_root:
        raise ValueError(f"the {config.name} profile needs the real dataset {', '.join(study.datasets)}: set data_root "
                         "to the folder that holds it")
    if detector.pick_device(config.device).type == "cpu":
        torch.set_num_threads(1)
    return Workspace(config, study, Path(data_root).expanduser().resolve() if data_root else None,
                     Path(out).expanduser().resolve() if out else None)


@dataclass(frozen=True)
class Run:
    """One category, one seed: its data, its trained detector, and what the detector says of the test images."""

    workspace: Workspace
    config: Config
    name: str
    category: str
    split: str = "random"

    def __str__(self) -> str:
        return f"{self.workspace.title(self.name)} {self.category}"

    @cached_property
    def dataset(self) -> data.Dataset:
        """Read from disk; synthetic ones are drawn first."""
        root = self.workspace.data_root
        if self.workspace.study.source == "synthetic":
            root = synthetic_root(self.workspace, self.config)
            synthetic.write(root, self.name, self.category, *self.workspace.study.counts, seed=self.config.seed)
        seed = dict(seed=self.config.seed)
        options = {"mtd": dict(split=self.split) | seed, "elpv": seed}.get(self.name, {})
        return data.load(self.name, root, self.category, **options)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of every file of the dataset and of how it is divided."""
        return self.dataset.fingerprint()

    @cached_property
    def units(self) -> list[str]:
        """`units_of` the test images (N,)."""
        return self.units_of(self.dataset.test)

    def units_of(self, samples: Iterable[data.Sample]) -> list[str]:
        """The name of what is independent in each image: the tile, for magnetic tiles, which are there under several
        exposures; else the image.  Synthetic images are others under each seed; real ones are the same.
        """
        if self.name == "mtd":
            everything = [*self.dataset.train, *self.dataset.test]
            tile_of = {sample.image: f"tile {i}" for i, tile in enumerate(mtd.tiles(everything, [])) for sample in tile}
            return [tile_of[sample.image] for sample in samples]
        drawn = f"{self.config.seed}/" if self.workspace.study.source == "synthetic" else ""
        return [f"{self.name}/{self.category}/{drawn}{'/'.join(sample.image.parts[-3:])}" for sample in samples]

    @cached_property
    def labels(self) -> Tensor:
        """(N,) 1 = anomalous."""
        return self.dataset.labels("test")

    @property
    def has_masks(self) -> bool:
        """Whether the dataset says where its defects are."""
        return any(sample.mask for sample in self.dataset.test)

    @cached_property
    def masks(self) -> Tensor:
        """(N, H, W) bool; without `has_masks` all of each anomalous image, to choose pictures by, not for metrics."""
        if not self.has_masks:
            side = self.config.image_size
            return (self.labels == 1).view(-1, 1, 1).expand(-1, side, side).clone()
        return self.dataset.masks("test", self.config.image_size)

    @cached_property
    def images(self) -> Tensor:
        """Test images (N, 3, H, W) in [-1, 1]."""
        return self.dataset.images("test", self.config.image_size)

    @cached_property
    def normal_images(self) -> Tensor:
        """All that is there to learn from, (N, 3, H, W) in [-1, 1]."""
        return self.dataset.images("train", self.config.image_size)

    @property
    def training_images(self) -> Tensor:
        """The normal images that are trained on: without those that only calibrate."""
        return set_apart(self.normal_images, self.config.calibration_share)[0]

    @cached_property
    def key(self) -> str:
        """A hash of everything that the trained detector depends on."""
        names = set(self.config.hashed()) - set(Config.names(MACHINE)) - {"normalisation"}
        parts = [str(VERSION), self.config.hash(*sorted(names)), self.fingerprint, *key_parts(self)]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:12]

    @cached_property
    def folder(self) -> Path:
        """The run's folder in the cache."""
        return self.workspace.cache / f"{self.name}-{self.category}-{self.key}"

    @property
    def detector(self) -> D3AD:
        """The trained detector, from the cache where it lies there.  Only that of the run asked for last stays loaded,
        besides those that the caller holds: twelve of the paper's size would fill a GPU.
        """
        self.ensure_trained()
        return loaded(self.folder / "detector", self.config.device)

    @property
    def conditioning(self) -> DynamicConditioning:
        """Algorithm 2 as the trained detector has it; reads no network."""
        self.ensure_trained()
        stored = read_tensors(self.folder / "detector" / "conditioning" / "model.safetensors", "reference")
        return DynamicConditioning.of(self.config).fit(stored["reference"])

    @property
    def losses(self) -> dict[str, list[float]]:
        """The losses of each training, by its name; reads no weights."""
        self.ensure_trained()
        return read_settings(self.folder / "detector")["losses"]

    def ensure_trained(self) -> None:
        """Train and save the detector where the cache lacks it; the states of its trainings are then no longer kept."""
        saved, states = self.folder / "detector", self.folder / "training"
        if not saved.exists():
            loaded.cache_clear()  # its memory is needed
            codec, backbone, losses = shared_parts(self)
            start = shared_unet(self, losses)
            fitted = D3AD(self.config, make_networks=own_networks)
            fitted.fit(self.normal_images, states, codec, backbone, start=start)
            fitted.losses = losses | fitted.losses
            fitted.save(saved)
        if states.exists():
            for file in states.glob(f"diffusion/{CHECKPOINT}-*.safetensors"):
                self.checkpoints.mkdir(exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # another process was first
                    file.replace(self.checkpoints / file.name)
            shutil.rmtree(states, ignore_errors=True)

    @property
    def checkpoints(self) -> Path:
        """Where weights of the diffusion model on its way lie, of the runs that keep some."""
        return self.folder / "checkpoints"

    def numbers(self, **changes) -> dict[str, float | None]:
        """The metrics of `evaluate` with settings changed, and `distance_auroc`, the I-AUROC of Algorithm 2's distance
        alone; cached.

        changes: as in `D3AD.variant`, or to settings of Eq. 10, for which the features are adapted anew.
        """
        file = self.file(changes).with_suffix(".json")
        if not file.exists():
            self.measure(changes, keep_maps=False)
        return read_json(file)

    def outcome(self, **changes) -> Outcome:
        """Scores, maps and metrics on the test images, with settings changed as in `numbers`; cached."""
        file = self.file(changes)
        if not file.exists():
            self.measure(changes, keep_maps=True)
        return Outcome.load(file)

    def is_kept(self, changes: dict, keep_maps: bool) -> bool:
        """Whether `outcome` (with `keep_maps`) or `numbers` lies in the cache."""
        return self.file(changes).with_suffix(".safetensors" if keep_maps else ".json").exists()

    def counts(self, **changes) -> resampling.Counts:
        """What the metrics rest on, image by image, with settings changed as in `numbers`; cached."""
        if not self.is_kept(changes, keep_maps=False):
            self.measure(changes, keep_maps=False)
        tensors, about = load_tensors(self._counts_file(changes))
        tensors.pop("distance")
        return resampling.Counts(**{name: tensor.numpy() for name, tensor in tensors.items()}, **about)

    def distances(self) -> Tensor:
        """Algorithm 2's distance of each test image, (N,)."""
        self.counts()
        return load_tensors(self._counts_file({}))[0]["distance"]

    def _counts_file(self, changes: dict) -> Path:
        return self.file(changes).with_suffix(".counts.safetensors")

    def file(self, changes: dict) -> Path:
        """Where `outcome` with settings changed is kept; what else is known of it lies beside it."""
        return self.folder / f"outcome-{self.config.replace(**changes).hash()}.safetensors"

    def measure(self, changes: dict, keep_maps: bool) -> None:
        """Predict the test images, settings changed as in `numbers`; keep the metrics, with `keep_maps` the maps."""
        variant = self.variant(**changes)
        prediction, masks = variant.predict(self.images), self.masks if self.has_masks else None
        # the run's own: the cached detector may have been trained under the other
        normalisation = self.config.replace(**changes).normalisation
        for_tables = prediction if normalisation == "train" else variant.renormalised(prediction, "test")
        numbers = evaluate(for_tables, self.labels, masks) | dict(
            distance_auroc=image_auroc(prediction.distance, self.labels))
        counts = resampling.count(for_tables.score, self.labels, for_tables.anomaly_map, masks)
        tensors = {name: torch.from_numpy(values) for name, values in counts.tensors().items()}
        save_tensors(self._counts_file(changes), tensors | {"distance": prediction.distance},
                     dict(image_size=counts.image_size))
        file = self.file(changes)
        if keep_maps:
            Outcome(prediction, numbers).save(file)
        write_whole(file.with_suffix(".json"), json.dumps(numbers))

    def variant(self, **changes) -> D3AD:
        """The detector with settings changed; its features are adapted anew for the settings of Eq. 10 and, where
        features are adapted at all, of `SAMPLING`.

        Eq. 10 sees reconstructions: features adapted to scaled ones would handicap every noised or guided one.
        """
        changes = {name: value for name, value in changes.items() if getattr(self.config, name) != value}
        if adapts_anew(self.config, changes):
            return self.detector.readapted(self.normal_images, shared_backbone(self, {}), **changes)
        return self.detector.variant(**changes) if changes else self.detector


def adapts_anew(config: Config, changes: dict) -> bool:
    """Whether a variant with these settings, which differ from the config's, has its features adapted anew."""
    adapts = changes.get("adapt_epochs", config.adapt_epochs) > 0
    return bool({*Config.names(ADAPTATION), *(SAMPLING if adapts else ())} & set(changes))


def synthetic_root(workspace: Workspace, config: Config) -> Path:
    """Where the synthetic datasets of one seed lie."""
    return workspace.cache / f"synthetic-{config.seed}"
