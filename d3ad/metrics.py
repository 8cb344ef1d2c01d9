"""I-AUROC, P-AUROC and PRO (Section 5), as fractions in [0, 1].

PRO is the official definition (Bergmann et al. 2019): the mean overlap with each 8-connected defect region, against the
false positive rate over all normal pixels, every threshold counted, integrated up to a limit of 0.3 and divided by it.
All counts are int64 or float64: sums of ones in float32 lose pixels above 16.7 million.

Arguments may be numpy arrays or torch tensors, of any shape that fits.
"""
import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)


def image_auroc(scores, labels) -> float:
    """I-AUROC of image scores (N,) against labels (N,), 1 = anomalous.  Raises ValueError where one class is missing."""
    scores, labels = _array(scores).ravel(), _array(labels).ravel() > 0
    _check(scores, labels, "image")
    return float(roc_auc_score(labels, scores))


def pixel_auroc(maps, masks) -> float:
    """P-AUROC of maps (N, H, W) against masks (N, H, W), nonzero = anomalous, over all pixels of all images."""
    scores, labels = _array(maps).ravel(), _array(masks).ravel() > 0
    _check(scores, labels, "pixel")
    return float(roc_auc_score(labels, scores))


def pro(maps, masks, fpr_limit: float = 0.3) -> float:
    """Exact PRO of maps (N, H, W) against masks (N, H, W), nonzero = anomalous; include the good images.

    One sort of all pixels, ties merged, trapezoids, the last one cut at `fpr_limit` by linear interpolation.
    Raises ValueError for NaN, shapes that differ, no region, no normal pixel, or a limit outside (0, 1].
    """
    fpr, overlap = pro_curve(maps, masks, fpr_limit)
    return float(np.trapezoid(overlap, fpr) / fpr_limit)


def pro_curve(maps, masks, fpr_limit: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """False positive rate and mean region overlap, both rising from (0, 0) and ending at `fpr_limit`; float64."""
    scores, weights = _pro_weights(maps, masks, fpr_limit)
    order = np.argsort(-scores)  # largest first; how ties are ordered doesn't matter, they are merged
    scores, weights = scores[order], weights[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    is_normal = weights == 0
    num_normal = int(is_normal.sum())
    fpr = np.append(0.0, np.cumsum(is_normal)[last_of_tie] / num_normal)
    overlap = np.append(0.0, np.cumsum(weights)[last_of_tie])
    end = int(np.searchsorted(fpr, fpr_limit, side="right"))  # first point past the limit
    if end < len(fpr):
        at_limit = np.interp(fpr_limit, fpr[end - 1:end + 1], overlap[end - 1:end + 1])
        fpr, overlap = np.append(fpr[:end], fpr_limit), np.append(overlap[:end], at_limit)
    return fpr, overlap


def _pro_weights(maps, masks, fpr_limit: float) -> tuple[np.ndarray, np.ndarray]:
    """All scores, and what each pixel adds to the mean overlap: 1 / (its region's area x number of regions), normal 0."""
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1]; got {fpr_limit}")
    maps, masks = _array(maps), _array(masks) > 0
    _check(maps, masks, "pixel")
    if maps.ndim != 3:
        raise ValueError(f"PRO needs maps (N, H, W); got {maps.shape}")
    weights, num_regions = np.zeros(maps.shape), 0
    for i in np.flatnonzero(masks.any((1, 2))):
        regions, count = ndimage.label(masks[i], EIGHT_CONNECTED)
        areas = np.bincount(regions.ravel())
        weights[i] = np.where(masks[i], 1 / areas[regions], 0)
        num_regions += count
    return maps.ravel(), (weights / num_regions).ravel()


def pro_200(maps, masks, fpr_limit: float = 0.3) -> float:
    """PRO as commonly computed, for comparison only: 200 equal thresholds, divided by the largest FPR found below 0.3.

    It changes when a map is replaced by a rising function of itself, which moves no pixel past another.
    """
    maps, masks = _array(maps), _array(masks) > 0
    scores, weights = _pro_weights(maps, masks, fpr_limit)
    normal = weights == 0
    thresholds = np.linspace(scores.min(), scores.max(), 200, endpoint=False)
    fpr = np.array([np.mean(scores[normal] > t) for t in thresholds])
    overlap = np.array([weights[scores > t].sum() for t in thresholds])
    kept = fpr < fpr_limit
    fpr, overlap = fpr[kept][::-1], overlap[kept][::-1]
    largest = fpr.max() if kept.any() else 0.0
    return float(np.trapezoid(overlap, fpr / largest)) if largest > 0 else 0.0


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _check(scores: np.ndarray, labels: np.ndarray, what: str) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} differ in shape")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(scores))} {what} scores are NaN or infinite")
    if not labels.any() or labels.all():
        raise ValueError(f"both normal and anomalous {what}s are needed; all are {'anomalous' if labels.any() else 'normal'}")
