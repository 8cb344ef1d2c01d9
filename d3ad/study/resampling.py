"""How far a measured number would move with other images: a bootstrap over what is independent, without new maps.

A map is kept as counts: how many of an image's normal pixels, and which pixels of its defects, lie in each of 512 bins.
A draw of the bootstrap weighs images, so its metric is a weighted sum of counts.  The bins are quantiles of the normal
pixels, most of them where PRO looks; pixels of one bin count as tied.  That moves PRO by at most half a bin's share of
the limit, 0.13 points, and in practice by some hundredths; the estimate itself is the exact one.

Weights are those of the Bayesian bootstrap (Rubin 1981): Exp(1) for each unit, the same for all methods, so that
comparisons are paired.  A unit is what is independent: an image, or a tile with all its exposures.
"""
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.stats import norm, t

from d3ad.metrics import EIGHT_CONNECTED

VERSION = 1                                     # raised when draws, which the cache keeps, come out otherwise
DRAWS = 1000
TOGETHER = 128                                  # draws computed at a time: their arrays stay near the processor
LIMIT = 0.3                                     # PRO's
BELOW, ABOVE = 384, 128                         # bins of false positive rates up to the limit, and beyond
SIZES = {"pro": (0.0, 1.0)}                     # of regions; `outcome.AREAS` has more


@dataclass(frozen=True)
class Counts:
    """What the metrics of N test images rest on, image by image.

    Pixels of defects are listed; those of normal places are counted.  Without masks the arrays of pixels are empty.
    """

    score: np.ndarray         # (N,) of images
    label: np.ndarray         # (N,) 1 = anomalous
    normal: np.ndarray        # (N, K) normal pixels of each image in each bin, bins from low to high values
    pixel_bin: np.ndarray     # (M,) bin of each defect pixel
    pixel_image: np.ndarray   # (M,) its image
    pixel_share: np.ndarray   # (M,) its region's share of the image
    image_size: int           # pixels of one map

    @cached_property
    def _regions(self) -> np.ndarray:
        """(M,) one over the pixels of each pixel's region: these add up to the number of regions."""
        return 1 / np.maximum(self.pixel_share * self.image_size, 1)

    def by_bin(self, per_pixel: np.ndarray) -> np.ndarray:
        """Sums (N, K) of a number per defect pixel (M,)."""
        count, bins = self.normal.shape
        at = self.pixel_image.astype(np.int64) * bins + self.pixel_bin
        return np.bincount(at, per_pixel, count * bins).reshape(count, bins)

    def draws(self, weights: np.ndarray, sizes: dict[str, tuple[float, float]] = SIZES) -> dict[str, np.ndarray]:
        """Each metric under weights (D, N) of the images, (D,) in [0, 1]: i_auroc, p_auroc and `sizes`; NaN where
        there is nothing to measure.

        sizes: name to the range (low, high] of a region's share of the image, as in `metrics.pro_by_area`.
        """
        counted = {name: (self.pixel_share > low) & (self.pixel_share <= high) for name, (low, high) in sizes.items()}
        overlaps = {name: self.by_bin(np.where(those, self._regions, 0.0)) for name, those in counted.items()}
        anomalous = self.by_bin(np.ones(len(self.pixel_bin)))
        parts = [self._draws(weights[i:i + TOGETHER], anomalous, overlaps) for i in range(0, len(weights), TOGETHER)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _draws(self, weights: np.ndarray, anomalous: np.ndarray, overlaps: dict[str, np.ndarray]
               ) -> dict[str, np.ndarray]:
        """anomalous, overlaps: sums (N, K) of the defects' pixels, and of `_regions` of those of each range of size."""
        found = {"i_auroc": self._image_auroc(weights)}
        if not len(self.pixel_bin):
            return found | dict.fromkeys(("p_auroc", *overlaps), np.full(len(weights), np.nan))
        normal = weights @ self.normal.astype(np.float64)
        upto = np.cumsum(normal[:, ::-1], 1)[:, ::-1] / normal.sum(1, keepdims=True)  # share as high or higher
        above = np.concatenate([upto[:, 1:], np.zeros((len(upto), 1))], 1)
        anomalous = weights @ anomalous
        found["p_auroc"] = 1 - (anomalous * (above + upto) / 2).sum(1) / anomalous.sum(1)
        ramp = np.where(upto > above, upto - above, 1)
        cut = np.maximum(LIMIT - above, 0) ** 2 / (2 * ramp)
        below = np.where(upto <= LIMIT, LIMIT - (above + upto) / 2, cut) / LIMIT
        for name, of_bins in overlaps.items():
            overlap = weights @ of_bins
            regions = overlap.sum(1)
            found[name] = np.divide((overlap * below).sum(1), regions, out=np.full(len(regions), np.nan),
                                    where=regions > 0)
        return found

    def _image_auroc(self, weights: np.ndarray) -> np.ndarray:
        bad, good = self.label == 1, self.label == 0
        wins = np.sign(self.score[bad][:, None] - self.score[good][None]) / 2 + 0.5
        pairs = ((weights[:, bad] @ wins) * weights[:, good]).sum(1)
        return pairs / (weights[:, bad].sum(1) * weights[:, good].sum(1))

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays in the smallest types that hold them, for a file."""
        return dict(score=self.score.astype(np.float64), label=self.label.astype(np.uint8),
                    normal=self.normal.astype(np.int32), pixel_bin=self.pixel_bin.astype(np.int16),
                    pixel_image=self.pixel_image.astype(np.int32), pixel_share=self.pixel_share.astype(np.float32))


def count(score, label, maps=None, masks=None) -> Counts:
    """The counts of maps (N, H, W) against masks (N, H, W) bool, of scores (N,) and labels (N,), 1 = anomalous.

    maps, masks: None for a dataset without masks.
    """
    score, label = np.asarray(score, dtype=np.float64), np.asarray(label)
    if maps is None or masks is None:
        nothing = np.zeros(0)
        return Counts(score, label, np.zeros((len(score), 1)), nothing.astype(int), nothing.astype(int), nothing, 1)
    maps, masks = np.asarray(maps), np.asarray(masks).astype(bool)
    edges = _edges(maps[~masks])
    bins = np.searchsorted(edges, maps.reshape(len(maps), -1), "right").reshape(maps.shape)
    normal = np.stack([np.bincount(b[~m], minlength=len(edges) + 1) for b, m in zip(bins, masks)])
    pixels = []
    for i in np.flatnonzero(masks.any((1, 2))):
        regions, _ = ndimage.label(masks[i], EIGHT_CONNECTED)
        shares = np.bincount(regions.ravel()) / masks[i].size
        pixels.append((bins[i][masks[i]], np.full(masks[i].sum(), i), shares[regions[masks[i]]]))
    return Counts(score, label, normal, *(np.concatenate(part) for part in zip(*pixels)), masks[0].size)


def _edges(normal: np.ndarray) -> np.ndarray:
    """The values between bins: quantiles of normal pixels, equal where many pixels tie (those bins stay empty)."""
    rates = np.concatenate([np.linspace(0, 1 - LIMIT, ABOVE + 1)[1:], np.linspace(1 - LIMIT, 1, BELOW + 1)[1:-1]])
    ranks = np.minimum((rates * len(normal)).astype(int), len(normal) - 1)
    return np.sort(normal)[ranks]


def unit_weights(units: list[str], draws: int = DRAWS) -> np.ndarray:
    """Weights (draws, N) of N images by the names of their units: Exp(1), equal for equal names, whatever else there
    is.
    """
    of_unit = {unit: np.random.default_rng(zlib.crc32(unit.encode())).exponential(size=draws) for unit in set(units)}
    return np.stack([of_unit[unit] for unit in units], 1)


def widened(values: np.ndarray, count: int) -> np.ndarray:
    """Draws (1 + D,) drawn apart around their estimate, for few units: the bootstrap's spread of `count` units is too
    small by sqrt((n - 1) / (n + 1)), and Student's quantile is above the normal one.  Nothing for fewer than two.
    """
    if count < 2:
        return values
    factor = ((count + 1) / (count - 1)) ** 0.5 * t.ppf(0.975, count - 1) / norm.ppf(0.975)
    return values[0] + factor * (values - values[0])


def over_seeds(values: np.ndarray, name: str) -> np.ndarray:
    """Mean over seeds (1 + D,) of a number's estimate and draws (S, 1 + D), the draws with the seeds' own spread.

    Each draw takes S - 1 of the S seeds, with replacement: the variance of their mean is then that of a mean of S
    (McCarthy and Snowden 1985), which S of S would understate by a third where S is 3.  One seed is taken as it is.
    name: of what the seeds belong to; equal names take the same seeds, so that comparisons are paired.
    """
    seeds, size = values.shape
    if seeds == 1:
        return values[0]
    chosen = np.random.default_rng(zlib.crc32(f"seeds of {name}".encode())).integers(seeds, size=(seeds - 1, size))
    mean = np.take_along_axis(values, chosen, 0).mean(0)
    mean[0] = values[:, 0].mean()
    return mean
