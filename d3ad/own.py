"""A part of the reader's own: from a set of good images to a detector with a threshold, kept in the cache."""
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from d3ad import data
from d3ad.data import synthetic
from d3ad.detector import D3AD
from d3ad.experiments import VERSION, Workspace

PART = ("mvtec", "button", 120, 30, 60)  # layout, drawing, and how many training, good and anomalous test images


def example_part(workspace: Workspace) -> data.Dataset:
    """A part that no notebook before has seen: drawn buttons, or the first category of the profile's real dataset."""
    config = workspace.config
    if config.source == "disk":
        name, category = workspace.targets()[0]
        return workspace.run(name, category).dataset
    layout, drawing, *counts = PART
    if workspace.name == "smoke":
        counts = config.drawn_counts
    root = workspace.cache / "own-parts"
    synthetic.write(root, layout, drawing, *counts, seed=config.seed)
    return data.load(layout, root, drawing)


def split_off(images: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide images (N, ...) at random into those to train on and a `share` to set the threshold on, at least one of each."""
    count = min(max(round(share * len(images)), 1), len(images) - 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[count:].sort().values], images[order[:count].sort().values]


def trained(workspace: Workspace, good: Tensor, held_out: float = 0.2, false_alarm_rate: float = 0.01) -> D3AD:
    """A detector trained on good images (N, 3, H, W) in [-1, 1], its threshold set on a share of them; cached."""
    settings = f"{VERSION}|{workspace.config.hash()}|{held_out}|{false_alarm_rate}|"
    key = hashlib.sha256(settings.encode() + good.numpy().tobytes()).hexdigest()[:12]
    folder: Path = workspace.cache / f"own-{key}"
    if not (folder / "detector").exists():
        train, rest = split_off(good, held_out, workspace.config.seed)
        detector = D3AD(workspace.config).fit(train, folder / "training")
        detector.set_threshold(rest, false_alarm_rate)
        detector.save(folder / "detector")
    return D3AD.load(folder / "detector", workspace.config.device)
