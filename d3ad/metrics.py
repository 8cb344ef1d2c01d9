"""I-AUROC, P-AUROC and PRO (Section 5), as fractions in [0, 1].

PRO is the official definition (Bergmann et al. 2019): the mean overlap with each 8-connected defect region, against the
false positive rate over all normal pixels, every threshold counted, integrated up to a limit of 0.3 and divided by it.
All counts are int64 or float64: sums of ones in float32 lose pixels above 16.7 million.

Arguments may be numpy arrays or torch tensors, of any shape that fits.
"""
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

class NoRegion(ValueError):
    """No region of the size asked for."""


EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


def image_auroc(scores, labels) -> float:
    """I-AUROC of image scores (N,) against labels (N,), 1 = anomalous.  Raises ValueError where one class is missing."""
    scores, labels = _array(scores).ravel(), _positive(labels).ravel()
    _check(scores, labels, "image")
    return float(roc_auc_score(labels, scores))


def pixel_auroc(maps, masks) -> float:
    """P-AUROC of maps (N, H, W) against masks (N, H, W), nonzero = anomalous, over all pixels of all images."""
    scores, labels = _array(maps).ravel(), _positive(masks).ravel()
    _check(scores, labels, "pixel")
    return float(roc_auc_score(labels, scores))


def pro(maps, masks, fpr_limit: float = 0.3, area: tuple[float, float] = (0.0, 1.0)) -> float:
    """Exact PRO of maps (N, H, W) against masks (N, H, W), nonzero = anomalous; include the good images.

    One sort of the pixels that the limit needs, ties merged, trapezoids, the last one cut at `fpr_limit` by linear interpolation.
    area: only regions whose share of the image lies in (low, high] count; the others' pixels are left out.
    Raises ValueError for NaN, shapes that differ, no region (`NoRegion` where none is of that area), no normal pixel, or a
    limit outside (0, 1].
    """
    fpr, overlap = pro_curve(maps, masks, fpr_limit, area)
    return float(np.trapezoid(overlap, fpr) / fpr_limit)


def pro_curve(maps, masks, fpr_limit: float = 0.3, area: tuple[float, float] = (0.0, 1.0)) -> tuple[np.ndarray, np.ndarray]:
    """False positive rate and mean region overlap, both rising from (0, 0) and ending at `fpr_limit`; float64."""
    return _curve(_ranked(maps, masks, fpr_limit), fpr_limit, area)


def pro_by_area(maps, masks, areas: dict[str, tuple[float, float]], fpr_limit: float = 0.3) -> dict[str, float | None]:
    """`pro` for several ranges of area from one sort; None where no region is of that area."""
    ranked, found = _ranked(maps, masks, fpr_limit), {}
    for name, area in areas.items():
        try:
            fpr, overlap = _curve(ranked, fpr_limit, area)
            found[name] = float(np.trapezoid(overlap, fpr) / fpr_limit)
        except NoRegion:
            found[name] = None
    return found


@dataclass(frozen=True)
class _Ranked:
    """Pixels in falling order of their score, as far as the limit needs them."""

    scores: np.ndarray         # (M,)
    areas: np.ndarray          # (M,) pixels of the region that the pixel belongs to, 0 where it is normal
    region_areas: np.ndarray   # (R,) of all regions
    num_normal: int            # of all pixels, the lower ones too
    num_pixels: int            # of one image
    lowest: float              # of all scores


def _ranked(maps, masks, fpr_limit: float) -> _Ranked:
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1]; got {fpr_limit}")
    maps, masks = _array(maps), _positive(masks)
    _check(maps, masks, "pixel")
    if maps.ndim != 3:
        raise ValueError(f"PRO needs maps (N, H, W); got {maps.shape}")
    areas, region_areas = np.zeros(maps.shape, np.int64), []
    for i in np.flatnonzero(masks.any((1, 2))):
        regions, count = ndimage.label(masks[i], EIGHT_CONNECTED)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        areas[i] = np.where(masks[i], sizes[regions], 0)
        region_areas.append(sizes[1:])
    normal = maps[~masks]
    place = max(len(normal) - int(fpr_limit * len(normal)) - 2, 0)  # the first normal pixel past the limit, and one to spare
    needed = maps >= np.partition(normal, place)[place]
    scores, areas = maps[needed], areas[needed]
    order = np.argsort(-scores)  # largest first; how ties are ordered doesn't matter, they are merged
    return _Ranked(scores[order], areas[order], np.concatenate(region_areas), len(normal), masks[0].size, maps.min())


def _weights(ranked: _Ranked, area: tuple[float, float]) -> np.ndarray:
    """What each pixel adds to the mean overlap: 1 / (its region's area x number of regions), NaN where it is left out."""
    low, high = area[0] * ranked.num_pixels, area[1] * ranked.num_pixels
    num_regions = np.count_nonzero((ranked.region_areas > low) & (ranked.region_areas <= high))
    if num_regions == 0:
        raise NoRegion(f"no region has a share of the image in {area}")
    is_normal, counts = ranked.areas == 0, (ranked.areas > low) & (ranked.areas <= high)
    return np.where(counts, 1 / (np.maximum(ranked.areas, 1) * num_regions), np.where(is_normal, 0, np.nan))


def _curve(ranked: _Ranked, fpr_limit: float, area: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    weights = _weights(ranked, area)
    kept = ~np.isnan(weights)
    scores, weights = ranked.scores[kept], weights[kept]
    last_of_tie = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    fpr = np.append(0.0, np.cumsum(weights == 0)[last_of_tie] / ranked.num_normal)
    overlap = np.append(0.0, np.cumsum(weights)[last_of_tie])
    end = int(np.searchsorted(fpr, fpr_limit, side="right"))  # first point past the limit
    if end < len(fpr):
        at_limit = np.interp(fpr_limit, fpr[end - 1:end + 1], overlap[end - 1:end + 1])
        fpr, overlap = np.append(fpr[:end], fpr_limit), np.append(overlap[:end], at_limit)
    return fpr, overlap


def pro_200(maps, masks, fpr_limit: float = 0.3) -> float:
    """PRO as commonly computed, for comparison only: 200 equal thresholds, divided by the largest FPR found below 0.3.

    It changes when a map is replaced by a rising function of itself, which moves no pixel past another.
    """
    ranked = _ranked(maps, masks, fpr_limit)
    thresholds = np.linspace(ranked.scores[0], ranked.lowest, 201)[1:]
    above = np.searchsorted(-ranked.scores, -thresholds, side="left")  # how many pixels exceed each threshold
    fpr = np.append(0, np.cumsum(ranked.areas == 0))[above] / ranked.num_normal
    overlap = np.append(0, np.cumsum(_weights(ranked, (0.0, 1.0))))[above]
    kept = fpr < fpr_limit
    largest = fpr[kept].max() if kept.any() else 0.0
    return float(np.trapezoid(overlap[kept], fpr[kept] / largest)) if largest > 0 else 0.0


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _positive(labels) -> np.ndarray:
    """Labels or masks as bool, True = anomalous; a NaN or a -1 must not pass for normal."""
    labels = _array(labels)
    if not (labels >= 0).all():
        raise ValueError("labels must be 0 (normal) or above (anomalous), none of them NaN")
    return labels > 0


def _check(scores: np.ndarray, labels: np.ndarray, what: str) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} differ in shape")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} {what} scores are NaN or infinite")
    if not labels.any() or labels.all():
        raise ValueError(f"both normal and anomalous {what}s are needed; all are {'anomalous' if labels.any() else 'normal'}")
