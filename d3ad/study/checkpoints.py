"""When to stop training: the diffusion model after equal parts of its training, compared on validation images.

The authors chose a checkpoint per category, on the test set, because the UNet overfits.  Here no test image is looked
at: validation images are normal ones that were not trained on, and the same with a synthetic defect each.
"""
import copy
import dataclasses
import json
from pathlib import Path

import pandas as pd

from d3ad import metrics, training
from d3ad.data.apart import set_apart, spread_over
from d3ad.detector import D3AD
from d3ad.infra.batches import step_generator
from d3ad.infra.checkpoint import load_network
from d3ad.infra.files import read_json, write_whole
from d3ad.speed.presets import own_networks
from d3ad.study.jobs import on_trained
from d3ad.study.remembering import Remembering
from d3ad.study.validation import with_defects
from d3ad.study.workspace import Run, Workspace

SHARE = 0.2   # of the normal images, where the profile trains on all of them
MOST = 64     # validation images without a defect


def validated(workspace: Workspace) -> Run:
    """The run whose checkpoints are compared: the profile's first, some of its normal images not trained on.

    Where the profile trains on all, it is a run of its own, which no other table uses.
    Raises ValueError where the profile keeps no checkpoints.
    """
    if not workspace.study.compared_checkpoints:
        raise ValueError(f"the {workspace.name} profile keeps no checkpoints: set compared_checkpoints in its table "
                         "[study]")
    run = workspace.run(*workspace.targets()[0])
    share = run.config.calibration_share or SHARE
    return dataclasses.replace(run, config=run.config.replace(calibration_share=share,
                                                              checkpoints=workspace.study.compared_checkpoints))


def over_training(workspace: Workspace) -> pd.DataFrame:
    """A row per checkpoint: steps, epochs, validation_pro and validation_i_auroc, in percent.

    The features are those adapted at the end of the training, at every checkpoint.
    Raises FileNotFoundError where the cache's detector was trained before the profile kept checkpoints.
    """
    run = validated(workspace)
    on_trained("checkpoints", compare, [(run,)] if not _file(run).exists() else [])
    return pd.DataFrame(read_json(_file(run)))


def _file(run: Run) -> Path:
    return run.folder / f"checkpoints-{run.config.checkpoints}.json"


def compare(run: Run) -> None:
    """Measure each checkpoint of a trained run, and keep the rows of `over_training` in its folder."""
    run.ensure_trained()
    files = sorted(run.checkpoints.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{run.checkpoints}: no checkpoints; {run} was trained before the profile kept some, "
                                "so remove its folder in the cache, or use --force")
    held = set_apart(run.normal_images, run.config.calibration_share)[1]
    good = spread_over(held, MOST)
    images, masks, labels = with_defects(good, step_generator(run.config.seed, 0))
    latents = training.num_latents(len(run.normal_images), run.config)
    of_epoch = training.steps_per_epoch(run.config, latents)
    rows, detector = [], run.detector
    for file in files:
        found = at(detector, file).predict(images)
        steps = int(file.stem.rsplit("-", 1)[1])
        rows.append(dict(dataset=run.workspace.title(run.name), category=run.category, steps=steps,
                         epochs=steps / of_epoch,
                         validation_pro=100 * metrics.pro(found.anomaly_map, masks),
                         validation_i_auroc=100 * metrics.image_auroc(found.score, labels)))
    write_whole(_file(run), json.dumps(rows))


def at(detector: D3AD, file: Path) -> D3AD:
    """The detector with the diffusion model of a checkpoint, calibrated anew."""
    other = copy.copy(detector)
    other.unet = load_network(file, lambda: training.make_unet(detector.config)).to(detector.device)
    networks = Remembering(own_networks(other))
    networks.seen = detector.networks.seen  # features and latents don't depend on the UNet
    return other.variant(networks)
