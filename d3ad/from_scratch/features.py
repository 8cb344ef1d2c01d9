"""Training of phi on normal images, from random weights: to find what was pasted in.  Not part of the paper, which
takes ImageNet's.
"""
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.config import Config
from d3ad.features import FeatureExtractor
from d3ad.from_scratch.batches import batch_of
from d3ad.infra.batches import step_generator
from d3ad.infra.devices import pick_device, seeded
from d3ad.infra.optimising import optimise


def fit_backbone(images: Tensor | None, config: Config, folder: Path | None, losses: dict) -> FeatureExtractor:
    """The feature extractor that the config asks for, loaded, or trained on `images` where it has no weights."""
    with seeded(config.seed):
        backbone = FeatureExtractor(config.backbone, config.backbone_weights).to(pick_device(config.device))
    if config.backbone_weights == "none" and config.pretrain_steps:
        losses["features"] = pretrain(backbone, images, config, folder)
    return backbone.eval().requires_grad_(False)


def corrupt(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal images (B, 3, H, W) with a patch that doesn't belong there, and where it is, (B, H, W) of 0 and 1.

    One or two blobs, from a hair to a quarter of the image, hold another place of another image, made darker or
    brighter so that it shows on a plain surface too.
    """
    batch, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator).to(images)

    where = torch.stack([_blob(height, width, generator) for _ in range(batch)])
    second = torch.stack([_blob(height, width, generator) for _ in range(batch)])
    where = torch.where(uniform(0, 1).squeeze(1) < 0.4, where.maximum(second), where).unsqueeze(1).to(images)
    shift = torch.randint(height // 8, height - height // 8, (2,), generator=generator).tolist()
    other = images[torch.randperm(batch, generator=generator)].roll(shift, (2, 3))
    patch = torch.lerp(images, other, uniform(0, 1)) + uniform(0.15, 0.8) * uniform(-1, 1).sign()
    opacity = uniform(0.4, 1.0) * where
    return ((1 - opacity) * images + opacity * patch).clamp(-1, 1), where.squeeze(1)


def _blob(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A mask (H, W) of 0 and 1: a stretched, turned ellipse with a rough edge, 1/50 to 1/2 of the image wide.

    In some of them the roughness also leaves spots far from the ellipse.
    """
    size, aspect, angle, cy, cx = torch.rand(5, generator=generator).tolist()
    y = torch.linspace(0, 1, height).view(-1, 1) - cy
    x = torch.linspace(0, 1, width).view(1, -1) - cx
    turn = torch.tensor(torch.pi * angle)
    long = 0.03 + 0.25 * size ** 2
    short = max(long * (0.1 + 0.9 * aspect), 0.012)
    distance = ((turn.cos() * x + turn.sin() * y) / long) ** 2 + ((turn.cos() * y - turn.sin() * x) / short) ** 2
    grain = torch.randn(1, 1, 8, 8, generator=generator)
    rough = F.interpolate(grain, (height, width), mode="bicubic").view(height, width)
    return (distance * (1 + 0.4 * rough) < 1).float()


def pretrain(backbone: FeatureExtractor, images: Tensor, config: Config, folder: Path | None = None) -> list[float]:
    """Train phi on normal images alone: tell, at each location, what was pasted in by `corrupt`.

    It takes the place of ImageNet's weights where none are wanted.  Not part of the paper.
    """
    heads = nn.ModuleDict({str(j): nn.LazyConv2d(1, 1) for j in config.adapt_blocks})
    device = backbone.mean.device
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for j, head in heads.items():  # their widths, and so their weights, come with the first input
            head.to(device)(backbone(images[:2].to(device))[int(j)])
    learners = nn.ModuleDict({"phi": backbone, "heads": heads}).requires_grad_(True)

    def loss_of_step(step: int) -> Tensor:
        batch = batch_of(images, step, config)
        corrupted, where = (x.to(device) for x in corrupt(batch, step_generator(config.seed, step)))
        features = backbone(corrupted)
        target = {j: F.adaptive_avg_pool2d(where.unsqueeze(1), features[int(j)].shape[-2:]) for j in heads}
        rare = torch.tensor(8.0, device=device)  # pasted places are few: each counts as eight
        return sum(F.binary_cross_entropy_with_logits(head(features[int(j)]), target[j], pos_weight=rare)
                   for j, head in heads.items())

    return optimise("features", learners, loss_of_step, config.pretrain_steps, learning_rate=1e-3, weight_decay=0.01,
                    schedule="cosine", folder=folder)
