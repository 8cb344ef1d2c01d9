"""What a study with the paper's networks costs: hours, disk and memory, by formula, before anything is computed.

Multiplications are counted on shapes alone, weights and tensors likewise.  How large a share of its best rate a GPU
reaches in these networks (`SHARE`) comes from one detector that was trained on one, and stands beside every number.
"""
import json
import shutil
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from d3ad.baselines import baseline_class
from d3ad.config import Config
from d3ad.data import btad, mvtec, visa
from d3ad.infra.optimising import SAVED_EVERY
from d3ad.speed.benchmark.networks import flop, random_networks
from d3ad.speed.presets import PRESETS
from d3ad.study import ablations, switches
from d3ad.study.settings import Study, settings_of
from d3ad.study.workspace import Workspace, adapts_anew
from d3ad.training import num_latents, num_training_steps

SHARE = 0.04  # of the best rate, as docs/gpu.md says of one training: maps are small, and so are batches
POOLED = 16 * 16  # places of a block that Algorithm 2 keeps
H100 = {"bfloat16": 989e12, "float32": 495e12}  # multiplications and additions a second, NVIDIA's data sheet; TF32
PUBLISHED = {"visa": visa.PUBLISHED, "btad": btad.PUBLISHED, "mvtec": mvtec.PUBLISHED}


@dataclass(frozen=True)
class Sizes:
    """Sizes of one detector's networks.

    flop: of each part for one image.  weights: their number.  saved: bytes that one latent's training step keeps
    for its gradients, in float32.  largest: bytes of the autoencoder's largest layer for one image.  latent:
    numbers of an image's latent.  pooled: numbers of an image in Algorithm 2.
    """

    flop: dict[str, float]
    weights: dict[str, int]
    saved: float
    largest: float
    latent: int
    pooled: int


def sizes(config: Config) -> Sizes:
    """Counted on shapes; allocates nothing and computes nothing."""
    shaping = (name for name in Config.names() if name.startswith(("unet_", "autoencoder", "backbone"))
               or name in ("image_size", "latent_channels", "dic_block"))
    return _sizes(Config(**{name: getattr(config, name) for name in shaping}))  # others would count the same again


@lru_cache
def _sizes(config: Config) -> Sizes:
    with torch.device("meta"):
        networks = random_networks(config)
        codec, unet, backbone = networks
        layers: list[int] = []
        hooks = [layer.register_forward_hook(lambda _, given, out: layers.append(_bytes(given[0]) + _bytes(out)))
                 for layer in codec.model.modules() if isinstance(layer, torch.nn.Conv2d)]
        counted = flop(config, networks)
        for hook in hooks:
            hook.remove()
        latents, t = torch.empty(1, config.latent_channels, *[config.image_size // 8] * 2), torch.zeros(1)
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.untyped_storage()._cdata] = _bytes(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outcome = unet.train()(latents, t).sample  # held, so that no storage is used twice
    weights = {name: sum(p.numel() for p in part.parameters())
               for name, part in (("autoencoder", codec), ("UNet", unet), ("features", backbone))}
    return Sizes(counted, weights, float(sum(kept.values())), float(max(layers)), outcome.numel(),
                 backbone.widths[config.dic_block] * POOLED)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


@dataclass
class Costs:
    """Costs of a study.  hours: on one device, by kind of work.  disk, memory: bytes at the end, and at most, by kind.

    state: bytes of a training state, of which two lie on the disk for each worker that trains.  written: bytes of all
    states over the whole study.
    """

    detectors: int = 0
    hours: dict[str, float] = field(default_factory=dict)
    disk: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    state: float = 0.0
    written: float = 0.0

    def on(self, devices: int) -> float:
        """Hours where so many devices take the detectors in turns, each with all that is measured on it."""
        return sum(self.hours.values()) * -(-self.detectors // devices) / max(self.detectors, 1)

    def __str__(self) -> str:
        parts = "; ".join(f"{name} {value:.1f}" for name, value in self.hours.items())
        disk = "; ".join(f"{name} {value / 1e9:.1f}" for name, value in self.disk.items())
        memory = "; ".join(f"{name} {value / 1e9:.1f}" for name, value in self.memory.items())
        return (f"by formula: {self.detectors} detectors take {self.on(1):.0f} hours on one H100 at "
                f"{100 * SHARE:.0f} % of its best rate, {self.on(8):.0f} on eight\n"
                f"  hours: {parts}\n  disk: {sum(self.disk.values()) / 1e9:.0f} GB ({disk}), and two training states, "
                f"{2 * self.state / 1e9:.1f} GB, for each worker that trains\n"
                f"  memory, GB: {memory}")


def costs(config: Config, study: Study, counts: dict[str, tuple[int, int]], rate: dict[str, float] = H100) -> Costs:
    """Costs of a profile on categories with so many training and test images each.

    rate: operations a second of the device, in "bfloat16" and in "float32"; `SHARE` of it is reached.
    """
    total, chosen = Costs(), study.spread_categories
    for category, (num_train, num_test) in counts.items():
        own = config.replace(**study.per_category.get(category, {}))
        for seed in range(study.seeds if not chosen or category in chosen else 1):
            variants = _variants(own, further=seed > 0)
            for part, operations in _flop(own, study, num_train, num_test, variants).items():
                precise = "float32" if part != "training" else own.train_precision
                total.hours[part] = total.hours.get(part, 0.0) + operations / (SHARE * rate[precise]) / 3600
            total.detectors += 1
            for part, size in _disk(own, study, num_train, num_test,
                                    num_maps=len(ablations.table4(own)) if seed == 0 else 0).items():
                total.disk[part] = total.disk.get(part, 0.0) + size
    largest = max(num_train for num_train, _ in counts.values())
    unet, of = sizes(config).weights["UNet"], sizes(config)
    seconds = 3600 * total.hours["training"] / total.detectors
    total.state = 12.0 * unet  # weights and their two moments
    total.written = total.detectors * (1 + seconds // SAVED_EVERY) * total.state
    half = 0.5 if config.train_precision == "bfloat16" else 1.0  # what is multiplied is kept in it
    all_weights = 4 * sum(of.weights.values())
    total.memory = {
        "training": all_weights + 12 * unet + half * of.saved * -(-config.batch_size // config.accumulate),
        "prediction": all_weights + 3 * of.largest * config.predict_batch,
        "images and Algorithm 2, of the host": 4.0 * largest * (3 * config.image_size ** 2 + of.pooled)}
    return total


def _variants(config: Config, further: bool) -> list[dict]:
    """The different settings that the notebooks measure on one detector; fewer for further seeds."""
    omegas = ablations.OMEGAS[::2] if further else ablations.OMEGAS
    wanted = [*ablations.seeded(config).values(), *(dict(omega=omega) for omega in omegas),
              *(dict(guidance=eta) for eta in (0.0, 7.0))]
    if not further:
        steps = list(ablations.table4(config).values())
        wanted += [*steps, *(changes | dict(second_sampler=True) for changes in steps),
                   *(switch.changes for switch in switches.SWITCHES),
                   *(dict(num_steps=preset.num_steps) for preset in PRESETS.values() if preset.num_steps)]
    different = {json.dumps(config.replace(**changes).to_dict()): changes for changes in wanted}
    return list(different.values())


def _flop(config: Config, study: Study, num_train: int, num_test: int, variants: list[dict]) -> dict[str, float]:
    """Operations by kind of work, of one detector and all that is measured on it."""
    of = sizes(config).flop

    def reconstructed(settings: Config) -> float:
        return settings.num_steps * of["eps"] + of["decode"]

    def adapted(settings: Config) -> float:  # two passes forward, each with one backward of twice the work
        return num_train * (settings.adapt_epochs * (reconstructed(settings) + 6 * of["features"]) + of["features"])

    latents = num_latents(num_train, config)
    steps = num_training_steps(config, latents)
    work = {"training": 3 * of["eps"] * steps * min(config.batch_size, latents),
            "adaptation": num_train * of["encode"] + adapted(config),
            "variants": num_test * (of["encode"] + of["features"]), "baselines": 0.0}
    for changes in variants:
        settings = config.replace(**changes)
        looks = num_test + min(settings.calibration_images, num_train)
        work["variants"] += looks * (reconstructed(settings) + of["features"])
        if adapts_anew(config, {name: value for name, value in changes.items() if getattr(config, name) != value}):
            work["variants"] += num_train * of["encode"] + adapted(settings)
    for name in study.baselines:
        asked = baseline_class(name).images_asked(num_train)
        work["baselines"] += 3 * of["eps"] * min(asked, study.baseline_images or asked)  # taken for as dear as the UNet
    return work


def _disk(config: Config, study: Study, num_train: int, num_test: int, num_maps: int) -> dict[str, float]:
    """Bytes kept of one detector and all that is measured on it; two states come on top while it is trained.

    num_maps: under how many settings the maps of the test images are kept; of others only the numbers are.
    """
    of, pixels = sizes(config), config.image_size ** 2
    images = min(config.calibration_images, num_train)
    return {"detectors": 4.0 * (sum(of.weights.values()) + num_train * of.pooled + 3 * images * pixels),
            "maps": 9.0 * num_test * pixels * num_maps,  # three in 16 bits, a reconstruction in bytes
            "baselines' maps": 5.0 * num_test * pixels * len(study.baselines)}


def of_profile(profile: str) -> Costs:
    """Costs of a profile on the whole of its published dataset."""
    config, study = settings_of(profile)
    counts = {category: (numbers[0], sum(numbers[1:])) for name in study.datasets
              for category, numbers in PUBLISHED[name].items()}
    return costs(config, study, counts)


def of_workspace(workspace: Workspace) -> str:
    """In words, for the images that a workspace finds; what its cache holds already is not taken off."""
    counts = {run.category: (len(run.dataset.train), len(run.dataset.test)) for run in workspace.runs()}
    place = next(path for path in (workspace.cache, *workspace.cache.parents) if path.exists())
    free = shutil.disk_usage(place).free / 1e9
    return f"{costs(workspace.config, workspace.study, counts)}\n  free on the cache's disk: {free:.0f} GB"
