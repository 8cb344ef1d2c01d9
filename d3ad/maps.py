"""Anomaly maps (Section 4.2, Eq. 9): latent distance, feature distance, their normalised sum, the image score."""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample(maps: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Maps (B, h, w) to (B, H, W), bilinear with aligned corners as in the authors' code."""
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=True).squeeze(1)


def latent_map(z0: Tensor, z_hat: Tensor, size: int | tuple[int, int] | None = None) -> Tensor:
    """l_map of Section 4.2: L1 distance of latents (B, C, h, w), mean over C; (B, h, w), or upsampled to `size`."""
    distance = (z0 - z_hat).abs().mean(1)
    return distance if size is None else upsample(distance, size)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """1 - cos over the channels of feature maps (B, C, h, w), at each location: (B, h, w), in [0, 2]."""
    return 1 - F.cosine_similarity(a, b, dim=1)


def mahalanobis_distance(a: Tensor, b: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """How unusual a - b is, at each location of feature maps (B, C, h, w): (B, h, w), 0 and up; not in the paper.

    Squared Mahalanobis distance over C, where usual differences have `mean` (C,) and `whitening` (C, C), of
    `Spread.whitening`: about 1 on average over those.
    """
    unusual = ((a - b).movedim(1, -1) - mean.to(a)) @ whitening.to(a)
    return unusual.square().mean(-1)


def feature_map(features: Sequence[Tensor], features_hat: Sequence[Tensor], size: int | tuple[int, int],
                usual: Sequence[tuple[Tensor, Tensor]] = ()) -> Tensor:
    """f_map of Section 4.2: distances of each block's features, upsampled to `size` and summed, (B, H, W).

    usual: what `mahalanobis_distance` takes, of each block; without it distances are cosine, as in the paper.
    """
    pairs = list(zip(features, features_hat, strict=True))
    distances = ([mahalanobis_distance(*pair, *of_block) for pair, of_block in zip(pairs, usual, strict=True)] if usual
                 else [cosine_distance(*pair) for pair in pairs])
    return sum(upsample(distance, size) for distance in distances)


def min_max(maps: Tensor, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
    """Maps to [0, 1] over [low, high]; over their own range where it isn't given ("normalized" in Section 4.2).

    The own range makes a map depend on all the others, as the authors' evaluation over a whole test set does.
    A given range may be exceeded: values above it stay above 1, so that a strong defect isn't cut off.  A range of no
    width gives 0, one that holds NaN gives NaN.
    """
    low = maps.min() if low is None else torch.as_tensor(low).to(maps)
    high = maps.max() if high is None else torch.as_tensor(high).to(maps)
    width = high - low
    flat = width <= 0  # false for NaN, which must not pass for 0
    return torch.where(flat, 0, (maps - low) / torch.where(flat, 1, width))


def gaussian_kernel(sigma: float) -> Tensor:
    """Normalised 1-D Gaussian, cut at 4 sigma (33 taps at the paper's sigma = 4)."""
    radius = int(4 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    return (weights / weights.sum()).float()


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian filter of maps (B, H, W), sigma in pixels, borders reflected; sigma = 0 changes nothing.

    Raises ValueError where the filter, 4 sigma on each side, is wider than a map.
    """
    if sigma == 0:
        return maps
    kernel = gaussian_kernel(sigma).to(maps)
    radius = len(kernel) // 2
    if radius >= min(maps.shape[-2:]):
        raise ValueError(f"sigma = {sigma} reaches {radius} pixels, more than a map of {tuple(maps.shape[-2:])} has")
    padded = F.pad(maps.unsqueeze(1), (radius,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1)).squeeze(1)


def anomaly_map(latent: Tensor, feature: Tensor, weight: float = 0.85, sigma: float = 4.0) -> Tensor:
    """A_map of Eq. 9, then the Gaussian (Appendix A.1): lambda l_map + (1 - lambda) f_map, smoothed, (B, H, W).

    latent, feature: maps (B, H, W) already normalised to [0, 1].  weight: lambda.  sigma: in pixels, 4 at 256 x 256.
    Raises ValueError for a weight outside [0, 1], or maps of two shapes.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight (lambda) must lie in [0, 1]; got {weight}")
    if latent.shape != feature.shape:
        raise ValueError(f"both maps must have one shape; got {tuple(latent.shape)} and {tuple(feature.shape)}")
    return smooth(weight * latent + (1 - weight) * feature, sigma)


def image_score(maps: Tensor) -> Tensor:
    """Global anomaly score (Section 4.2): the largest value of each map (B, H, W), (B,)."""
    return maps.flatten(1).amax(1)
