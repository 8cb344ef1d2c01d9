"""I-AUROC, P-AUROC and PRO (Section 5), as fractions in [0, 1].

PRO is the official definition (Bergmann et al. 2019): the mean overlap with each 8-connected defect region, against the
false positive rate over all normal pixels, every threshold counted, integrated up to a limit of 0.3 and divided by it.

PRO and P-AUROC are computed from ranks, without a curve.  A pixel of a defect is found at every threshold up to its own
score; the false positive rate there is the share of normal pixels that score higher.  So AUROC is the mean, over
anomalous pixels, of one minus that share; and PRO the mean over regions of how far each pixel's share stays below the
limit.  Only normal scores are sorted (for PRO the highest alone, as many as the limit lets pass), and a few anomalous
ones looked up among them.  Counts are exact: sums of ones in float32 lose pixels above 16.7 million.

Arguments may be numpy arrays or torch tensors, of any shape that fits.
Memory: 441 maps of 256 x 256 in float32 (BTAD's class 03, 116 MB) take 0.3 GB beside them.
"""
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score


class NoRegion(ValueError):
    """No region of the size asked for."""


EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


def image_auroc(scores, labels) -> float:
    """I-AUROC of image scores (N,) against labels (N,), 1 = anomalous.

    Raises ValueError for NaN, shapes that differ, or where one class is missing.
    """
    scores, labels = _array(scores).ravel(), _positive(labels).ravel()
    _check(scores, labels, "image")
    return float(roc_auc_score(labels, scores))


def pixel_auroc(maps, masks) -> float:
    """P-AUROC of maps (N, H, W) against masks (N, H, W), nonzero = anomalous, over all pixels of all images.

    Raises ValueError for NaN, shapes that differ, or where one class is missing.
    """
    scores, labels = _array(maps).ravel(), _positive(masks).ravel()
    _check(scores, labels, "pixel")
    above, upto = _false_positive_rates(np.sort(scores[~labels]), np.sort(scores[labels]))
    return float(np.clip(1 - (above + upto).mean() / 2, 0, 1))


def _false_positive_rates(normal: np.ndarray, scores: np.ndarray,
                          num_normal: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The share of normal scores (N,), rising, above each of `scores` (M,), and the share at or above it; float64.

    num_normal: how many there are, where `normal` holds only the highest of them.
    """
    left = np.searchsorted(normal, scores, "left")
    right, tied = left.copy(), np.flatnonzero(normal[np.minimum(left, len(normal) - 1)] == scores)
    right[tied] = np.searchsorted(normal, scores[tied], "right")  # elsewhere both are one place
    above, upto = len(normal) - right, len(normal) - left
    return above / (num_normal or len(normal)), upto / (num_normal or len(normal))


def _highest(scores: np.ndarray, share: float) -> np.ndarray:
    """The highest `share` of scores (N,) and all that tie with the lowest of these, rising."""
    first = max(len(scores) - int(np.ceil(share * len(scores))) - 1, 0)
    return np.sort(scores[scores >= np.partition(scores, first)[first]])


def pro(maps, masks, fpr_limit: float = 0.3, area: tuple[float, float] = (0.0, 1.0)) -> float:
    """Exact PRO of maps (N, H, W) against masks (N, H, W), nonzero = anomalous; include the good images.

    Ties are merged and integrated by trapezoids, the last one cut at `fpr_limit` by linear interpolation.
    area: only regions whose share of the image lies in (low, high] count; the others' pixels are left out.
    Raises ValueError for NaN, shapes that differ, no region (`NoRegion` where none is of that area), no normal pixel,
    or a limit outside (0, 1].
    """
    return _pro(_pixels(maps, masks, fpr_limit), fpr_limit, area)


def pro_by_area(maps, masks, areas: dict[str, tuple[float, float]], fpr_limit: float = 0.3) -> dict[str, float | None]:
    """`pro` for several ranges of area from one sort; None where no region is of that area."""
    return pro_of_areas(_pixels(maps, masks, fpr_limit), areas, fpr_limit)


def pro_of_areas(pixels: "Pixels", areas: dict[str, tuple[float, float]],
                 fpr_limit: float = 0.3) -> dict[str, float | None]:
    """`pro_by_area` of pixels that are counted already."""
    found = {}
    for name, area in areas.items():
        try:
            found[name] = _pro(pixels, fpr_limit, area)
        except NoRegion:
            found[name] = None
    return found


def _pro(pixels: "Pixels", limit: float, area: tuple[float, float]) -> float:
    """The weighted mean, over defect pixels, of how far their false positive rate stays below the limit, over the
    limit.

    Where normal pixels tie with a defect pixel, it is found little by little: a ramp from `above` to `upto`.
    """
    above, upto = pixels.above, pixels.upto
    ramp = np.where(upto > above, upto - above, 1)  # 1 where there is none: not used
    cut = np.maximum(limit - above, 0) ** 2 / (2 * ramp)  # the limit lies on the ramp
    below = np.where(upto <= limit, limit - (above + upto) / 2, cut)
    return float(np.clip((_weights(pixels, area) * below).sum() / limit, 0, 1))  # weights add up to 1 but for rounding


def pro_200(maps, masks, fpr_limit: float = 0.3) -> float:
    """PRO as commonly computed, for comparison only: 200 equal thresholds, divided by the largest FPR found below
    `fpr_limit`.

    It changes when a map is replaced by a rising function of itself, which moves no pixel past another.
    """
    pixels = _pixels(maps, masks, fpr_limit, whole=True)
    high, low = max(pixels.normal[-1], pixels.scores[-1]), min(pixels.normal[0], pixels.scores[0])
    thresholds = np.linspace(high, low, 201)[1:]
    return pro_200_of(pixels, thresholds, _false_positive_rates(pixels.normal, thresholds)[0], fpr_limit)


def pro_200_of(pixels: "Pixels", thresholds: np.ndarray, fpr: np.ndarray, fpr_limit: float = 0.3) -> float:
    """`pro_200` from the share of normal pixels above each threshold, thresholds falling."""
    overlap = np.append(np.cumsum(_weights(pixels, (0.0, 1.0))[::-1])[::-1],
                        0)[np.searchsorted(pixels.scores, thresholds, "right")]
    kept = fpr < fpr_limit
    largest = fpr[kept].max() if kept.any() else 0.0
    return float(np.clip(np.trapezoid(overlap[kept], fpr[kept] / largest), 0, 1)) if largest > 0 else 0.0


@dataclass(frozen=True)
class Pixels:
    """What PRO rests on: the scores of normal pixels, and of each anomalous pixel what belongs to it."""

    normal: np.ndarray        # (N,) scores of normal pixels, or of the highest of them, rising
    scores: np.ndarray        # (M,) scores of anomalous pixels, rising
    above: np.ndarray         # (M,) share of normal pixels that score higher
    upto: np.ndarray          # (M,) share that score as high or higher
    areas: np.ndarray         # (M,) pixels of the region that each belongs to
    region_areas: np.ndarray  # (R,) of all regions
    num_pixels: int           # of one image


def _pixels(maps, masks, fpr_limit: float, whole: bool = False) -> Pixels:
    """whole: False leaves out normal pixels far below the limit, which can't affect PRO: what scores as low as they do
    has a rate beyond the limit.
    """
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1]; got {fpr_limit}")
    maps, masks = _array(maps), _positive(masks)
    _check(maps, masks, "pixel")
    if maps.ndim != 3:
        raise ValueError(f"PRO needs maps (N, H, W); got {maps.shape}")
    scores, areas, region_areas = [], [], []
    for i in np.flatnonzero(masks.any((1, 2))):
        for found, collected in zip(regions_of(maps[i], masks[i]), (scores, areas, region_areas)):
            collected.append(found)
    scores, areas = np.concatenate(scores), np.concatenate(areas)
    order = np.argsort(scores)
    normal = maps[~masks]
    ranked = np.sort(normal) if whole else _highest(normal, fpr_limit)
    rates = _false_positive_rates(ranked, scores[order], len(normal))
    return Pixels(ranked, scores[order], *rates, areas[order], np.concatenate(region_areas), masks[0].size)


def regions_of(anomaly_map: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a mask's pixels (M,), the area of the region that each belongs to (M,), and of all its regions (R,)."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # labelling costs by the pixel
    anomaly_map, mask = anomaly_map[box], mask[box]
    regions, count = ndimage.label(mask, EIGHT_CONNECTED)
    regions = regions[mask]
    sizes = np.bincount(regions, minlength=count + 1)
    return anomaly_map[mask], sizes[regions], sizes[1:]


def _weights(pixels: Pixels, area: tuple[float, float]) -> np.ndarray:
    """What each anomalous pixel adds to the mean overlap: 1 / (its region's area x number of regions), 0 where it is
    left out."""
    low, high = area[0] * pixels.num_pixels, area[1] * pixels.num_pixels
    num_regions = np.count_nonzero((pixels.region_areas > low) & (pixels.region_areas <= high))
    if num_regions == 0:
        raise NoRegion(f"no region has a share of the image in {area}")
    return np.where((pixels.areas > low) & (pixels.areas <= high), 1 / (pixels.areas * num_regions), 0.0)


def _array(values) -> np.ndarray:
    if not hasattr(values, "detach"):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()  # numpy has no bfloat16


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
        raise ValueError(f"both normal and anomalous {what}s are needed; all are "
                         f"{'anomalous' if labels.any() else 'normal'}")
