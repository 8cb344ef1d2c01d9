"""What normal training images look like in the maps, per step and pixel.  Not in the paper: see `standardise` in config.py."""
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Calibration:
    """What normal training images look like in the maps; it makes one image's score independent of all other images."""

    levels: Tensor         # (L,) the steps T-hat that have statistics of their own
    latent_mean: Tensor    # (L, H, W), or (L, 1, 1) of zeros and ones where maps are not standardised
    latent_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    latent_range: Tensor   # (2,) lowest and highest value after standardising
    feature_range: Tensor
    threshold: Tensor      # scalar


def at_step(levels: Tensor, statistics: Tensor, t_hat: Tensor) -> Tensor:
    """Statistics (L, H, W) of rising levels (L,), linear in between, at each image's step (B,): (B, H, W)."""
    if len(levels) == 1:
        return statistics[torch.zeros_like(t_hat)]
    upper = torch.searchsorted(levels, t_hat).clamp(1, len(levels) - 1)
    share = ((t_hat - levels[upper - 1]) / (levels[upper] - levels[upper - 1])).view(-1, 1, 1)
    return torch.lerp(statistics[upper - 1], statistics[upper], share)


def level_statistics(level_maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over images, (L, H, W) each; a tenth of the mean deviation keeps quiet pixels from shouting."""
    mean = torch.stack([m.mean(0) for m in level_maps])
    std = torch.stack([m.std(0) for m in level_maps])
    return mean, std + 0.1 * std.mean((1, 2), keepdim=True) + 1e-12
