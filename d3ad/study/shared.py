"""What the runs of a profile share: autoencoder and feature extractor where they have no weights, and a UNet from which
each category's training sets out.  Each is trained once, and kept in the cache under a key of what it depends on.
"""
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from d3ad import from_scratch, training
from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.config import AUTOENCODER, DATA, DIFFUSION, FEATURES, Config
from d3ad.data import synthetic
from d3ad.data.apart import spread_over
from d3ad.features import FeatureExtractor
from d3ad.infra.checkpoint import empty
from d3ad.infra.devices import pick_device
from d3ad.infra.files import appearing, load_tensors, read_json, save_tensors, write_whole

if TYPE_CHECKING:
    from d3ad.study.settings import Study
    from d3ad.study.workspace import Run

VERSION = 5  # raised when the model code computes something else, so that older caches are not used


def shared_parts(run: "Run") -> tuple[LatentCodec, FeatureExtractor, dict]:
    """Autoencoder and feature extractor, trained once on all categories' normal images where they have no weights.

    They take the place of networks that the paper takes pretrained on other data; each detector adapts its own copy of
    the feature extractor.  All seeds of synthetic data share those of the profile's own seed, as they would share
    pretrained ones; on real data each split has its own, which must not see what that split tests with.
    Returns (codec, backbone, losses).
    """
    losses: dict = {}
    return shared_codec(run, losses), shared_backbone(run, losses), losses


def shared_codec(run: "Run", losses: dict) -> LatentCodec:
    """The first of `shared_parts`; its training losses go into `losses`."""
    config, folder, siblings = shared_of(run)
    if config.autoencoder_weights != "none":
        return from_scratch.fit_codec(None, config, None, losses)
    if not (folder / "codec").exists():
        of_training: dict = {}
        codec = from_scratch.fit_codec(_training_images(siblings), config, folder / "autoencoder", of_training)
        with appearing(folder / "codec") as part:
            codec.model.save_pretrained(part / "autoencoder")
            write_whole(part / "losses.json", json.dumps(of_training))
    shutil.rmtree(folder / "autoencoder", ignore_errors=True)
    losses |= read_json(folder / "codec" / "losses.json")
    codec = load_autoencoder(config.autoencoder, str(folder / "codec" / "autoencoder"))
    return codec.to(pick_device(config.device)).eval().requires_grad_(False)


def shared_backbone(run: "Run", losses: dict) -> FeatureExtractor:
    """The second of `shared_parts`; its training losses go into `losses`."""
    config, folder, siblings = shared_of(run)
    if config.backbone_weights != "none":
        return from_scratch.fit_backbone(None, config, None, losses)
    backbone = _kept(folder / "backbone.safetensors", lambda: FeatureExtractor(config.backbone, "none"), losses,
                     lambda states, found: from_scratch.fit_backbone(_training_images(siblings), config, states, found))
    return backbone.to(pick_device(config.device)).eval().requires_grad_(False)


def shared_unet(run: "Run", losses: dict) -> torch.nn.Module | None:
    """A UNet trained on all categories' normal images, from which each category's training sets out; None where the
    profile's `start_steps` is 0.  Its training losses go into `losses`.

    Not in the paper, whose 300 epochs a category need no such start; in `demo` it takes the place of most of them.
    """
    workspace = run.workspace
    if not workspace.study.start_steps:
        return None
    config, folder, siblings = shared_of(run)
    config = config.replace(train_steps=workspace.study.start_steps, checkpoints=0)

    def fit(states: Path, found: dict) -> torch.nn.Module:
        mean, std = training.latents(shared_codec(run, {}), _training_images(siblings), config)
        unet = training.fit_unet(mean, std, config, states, found)
        found["diffusion, all categories"] = found.pop("diffusion")  # each category has losses of its own
        return unet

    file = folder / f"start-{config.hash(*Config.names(DIFFUSION))}.safetensors"
    return _kept(file, lambda: training.make_unet(config), losses, fit)


def _kept(file: Path, make: Callable[[], torch.nn.Module], losses: dict,
          fit: Callable[[Path, dict], torch.nn.Module]) -> torch.nn.Module:
    """The network that make() builds, with a file's weights; where there is none, fit(states, losses) trains it first.

    states: a folder beside the file, for the states of that training; it is gone afterwards.
    """
    states = file.with_suffix("")
    if not file.exists():
        found: dict = {}
        save_tensors(file, fit(states, found).state_dict(), found)
    shutil.rmtree(states, ignore_errors=True)
    network = empty(make)
    tensors, found = load_tensors(file)
    network.load_state_dict(tensors)
    losses |= found
    return network


def key_parts(run: "Run") -> tuple[str, ...]:
    """What the key of a run has of the shared parts beyond its own settings: the weights that are given by a path, and,
    where anything is learnt in common, which categories it is learnt from, the start, and the seed of these parts where
    it isn't the run's.
    """
    workspace, given = run.workspace, local_weights(run.config)
    if not learns(run.config, workspace.study):
        return given
    drawn = workspace.study.source == "synthetic"
    # a drawn category follows from its name and the version of the drawings; of others any file may change
    parts = [*given, *(map(str, workspace.targets()) if drawn else [shared_of(run).folder.name])]
    if drawn and synthetic.VERSION > 1:
        parts.append(f"drawings {synthetic.VERSION}")
    if workspace.study.start_steps:
        parts.append(f"start {workspace.study.start_steps}")
    if drawn and workspace.config.seed != run.config.seed:
        parts.append(f"shared by seed {workspace.config.seed}")
    return tuple(parts)


def local_weights(config: Config) -> tuple[str, ...]:
    """12 hex digits of each file of weights that the settings name by a path, where another may come to lie."""
    places = [Path(place).expanduser() for place in (config.autoencoder_weights, config.backbone_weights)]
    files = [file for place in places if place.exists() and str(place) not in ("hub", "pip", "none")
             for file in (sorted(place.iterdir()) if place.is_dir() else [place])
             if file.suffix in (".safetensors", ".pth") and file.is_file()]
    return tuple(_digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache
def _digest(file: Path, size: int, changed: int) -> str:
    """Of a file; size and time of its last change say when to read it again."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def learns(config: Config, study: "Study") -> bool:
    """Whether anything is trained on all categories together."""
    return "none" in (config.autoencoder_weights, config.backbone_weights) or study.start_steps > 0


class Shared(NamedTuple):
    """Settings and cache folder of the shared parts, and the runs whose normal images they are trained on."""

    config: Config
    folder: Path
    siblings: tuple["Run", ...]


def shared_of(run: "Run") -> Shared:
    """What the run shares with the others of its profile."""
    workspace = run.workspace
    config = run.config.replace(seed=workspace.config.seed) if workspace.study.source == "synthetic" else run.config
    siblings = tuple(workspace.run(*target, config.seed, run.split) for target in workspace.targets())
    fingerprints = _fingerprints(siblings) if learns(config, workspace.study) else ()
    key = "|".join([str(VERSION), config.hash(*Config.names(DATA, AUTOENCODER, FEATURES)), *local_weights(config),
                    *fingerprints])
    return Shared(config, workspace.cache / f"shared-{hashlib.sha256(key.encode()).hexdigest()[:12]}", siblings)


@lru_cache(maxsize=8)
def _fingerprints(runs: tuple["Run", ...]) -> tuple[str, ...]:
    return tuple(run.fingerprint for run in runs)


@lru_cache(maxsize=1)
def _training_images(runs: tuple["Run", ...]) -> Tensor:
    """Normal images of all runs, as many of each."""
    images = [run.training_images for run in runs]
    return torch.cat([spread_over(part, min(map(len, images))) for part in images])
