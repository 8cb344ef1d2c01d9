"""What normal images look like in the maps, so that each image's score stands for itself.

Two things are not in the paper, see config.py: maps of one step and place in units of how much normal images vary there
(`standardise`), and features compared in units of how those of normal images differ from those of their reconstructions
(`feature_distance`).
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

import torch
from torch import Tensor

from d3ad import maps

FLOOR = 1.0  # docs/calibration.md


@dataclass
class Calibration:
    """What normal images look like in the maps; it makes one image's score independent of all other images."""

    levels: Tensor         # (L,) the steps T-hat that have statistics of their own
    latent_mean: Tensor    # (L, H, W), or (L, 1, 1) of zeros and ones where these maps are not standardised
    latent_std: Tensor
    feature_mean: Tensor
    feature_std: Tensor
    latent_range: Tensor   # (2,) lowest and highest value after standardising
    feature_range: Tensor
    threshold: Tensor      # scalar, of scores and map values
    # mean (C,) and whitening (C, C) of the differences between features of normal images and of their reconstructions,
    # the map's blocks one after the other; zero between blocks; empty where distances are cosine
    difference_mean: Tensor = field(default_factory=lambda: torch.zeros(0))
    difference_whitening: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    @classmethod
    def neutral(cls) -> "Calibration":
        """One that changes nothing: maps as they are, ranges 0 to 1."""
        zero, one, unit = torch.zeros(1, 1, 1), torch.ones(1, 1, 1), torch.tensor([0.0, 1.0])
        return cls(torch.zeros(1, dtype=torch.long), zero, one, zero, one, unit, unit, torch.tensor(0.0))

    def usual_differences(self, widths: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """What `maps.mahalanobis_distance` takes, for blocks of so many channels.

        Raises ValueError where they were measured for others, or not at all.
        """
        channels, mean, whitening = sum(widths), self.difference_mean, self.difference_whitening
        if mean.shape != (channels,) or whitening.shape != (channels, channels):
            raise ValueError(f"the calibration has differences of {min(len(mean), len(whitening))} channels, not of "
                             f"{channels} channels")
        blocks = [slice(end - width, end) for width, end in zip(widths, accumulate(widths))]
        return [(mean[block], whitening[block, block]) for block in blocks]

    def standardised(self, latent: Tensor, feature: Tensor, t_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, H, W) minus normal images' mean, over their standard deviation, at each image's step (B,)."""
        def at(statistics: Tensor) -> Tensor:
            return at_step(self.levels, statistics, t_hat)

        return ((latent - at(self.latent_mean)) / at(self.latent_std),
                (feature - at(self.feature_mean)) / at(self.feature_std))


def at_step(levels: Tensor, statistics: Tensor, t_hat: Tensor) -> Tensor:
    """Statistics (L, H, W) of rising levels (L,), linear in between, at each image's step (B,): (B, H, W)."""
    if len(levels) == 1:
        return statistics[torch.zeros_like(t_hat)]
    upper = torch.searchsorted(levels, t_hat).clamp(1, len(levels) - 1)
    share = ((t_hat - levels[upper - 1]) / (levels[upper] - levels[upper - 1])).view(-1, 1, 1)
    return torch.lerp(statistics[upper - 1], statistics[upper], share)


def level_statistics(level_maps: Sequence[Tensor], floor: float = FLOOR) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over images (N, H, W) at each of L levels, (L, H, W) each.

    floor: this share of a level's mean standard deviation is added to each pixel's: a few images say little of one
    pixel, and none should divide by almost nothing.
    """
    mean = torch.stack([m.mean(0) for m in level_maps])
    std = torch.stack([m.std(0) for m in level_maps])
    return mean, std + floor * std.mean((1, 2), keepdim=True) + 1e-12


def fuse(latent: Tensor, feature: Tensor, t_hat: Tensor, calibration: Calibration, weight: float, sigma: float,
         normalisation: str) -> tuple[Tensor, Tensor]:
    """Eq. 9 on normalised maps: the anomaly maps (B, H, W) and the image scores (B,).

    latent, feature: maps (B, H, W) before any normalisation.  normalisation: "train" takes the calibration's ranges,
    "test" the maps' own.  Raises ValueError for another word.
    """
    if normalisation not in ("test", "train"):
        raise ValueError(f'normalisation must be "train" or "test"; got {normalisation!r}')
    latent, feature = calibration.standardised(latent, feature, t_hat)
    if normalisation == "train":
        latent = maps.min_max(latent, *calibration.latent_range)
        feature = maps.min_max(feature, *calibration.feature_range)
    else:
        latent, feature = maps.min_max(latent), maps.min_max(feature)
    fused = maps.anomaly_map(latent, feature, weight, sigma)
    return fused, maps.image_score(fused)


def calibrate(maps_at: Callable[[Tensor], tuple[Tensor, Tensor]], t_hat: Tensor, levels: Tensor,
              standardise: tuple[str, ...], score: Callable[..., Tensor], quantile: float) -> Calibration:
    """The calibration that normal images give.

    maps_at: latent and feature maps (N, H, W) of the images reconstructed from steps (N,).  t_hat: (N,) their own
    steps.
    levels: (L,) the steps whose maps get statistics of their own.  standardise: which maps get them, "latent",
    "feature", both or none.
    score: (latent, feature, t_hat, calibration) to scores (N,).  quantile: of those scores; it becomes the threshold.
    """
    unchanged, names = Calibration.neutral(), ("latent", "feature")
    c, seen = unchanged, dict(zip(names, maps_at(t_hat))) if set(standardise) != set(names) else {}
    if standardise:
        c = replace(c, levels=levels)
        own = (levels - t_hat.unsqueeze(1)).abs().argmin(1)  # the level nearest to each image's step
        at_levels = zip(*(maps_at(torch.full_like(t_hat, int(step))) for step in levels))
        for name, level_maps in zip(names, at_levels):
            if name in standardise:
                mean, std = level_statistics(level_maps)
                seen[name] = by_the_others(level_maps, own)
            else:
                mean, std = torch.zeros(len(levels), 1, 1), torch.ones(len(levels), 1, 1)
            c = replace(c, **{f"{name}_mean": mean, f"{name}_std": std})
    latent, feature = (seen[name] for name in names)
    ranges = dict(latent_range=torch.stack(latent.aminmax()), feature_range=torch.stack(feature.aminmax()))
    scores = score(latent, feature, t_hat, replace(unchanged, **ranges))
    return replace(c, **ranges, threshold=scores.quantile(quantile))


def by_the_others(level_maps: Sequence[Tensor], own: Tensor) -> Tensor:
    """Each image's map at its own level, standardised by the other images, as a new image's will be by all: (N, H, W).

    level_maps: (N, H, W) at each of L levels.  own: (N,) long, below L.  Two images or fewer are standardised by all.
    """
    images = torch.arange(len(own))
    parts = []
    for i in images:
        maps_there = level_maps[own[i]]
        mean, std = level_statistics([maps_there[images != i] if len(images) > 2 else maps_there])
        parts.append((maps_there[i] - mean[0]) / std[0])
    return torch.stack(parts)
