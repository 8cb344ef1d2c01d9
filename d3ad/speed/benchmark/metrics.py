"""PRO and AUROC against the usual ways to compute them, on drawn maps: same values, seconds, memory."""
import tracemalloc

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from d3ad import metrics
from d3ad.infra.torchvision_shim import make_torchvision_importable
from d3ad.speed.benchmark import machine

CPU = torch.device("cpu")


def measure(num_maps: int = 60, size: int = 256, largest: int = 441) -> list[dict]:
    """One dict per way: metric, method, value, seconds, and how many times as long as ours it takes.

    A way whose package isn't installed is left out, and a line says so.
    largest: maps of BTAD's class 03, the largest test set; on so many the memory of ours is measured.
    """
    maps, masks = drawn_maps(num_maps, size)
    about = machine.describe(CPU) | dict(num_maps=num_maps, pixels=size)
    ways = {"PRO": {"ours, exact": metrics.pro, "anomalib's AUPRO": anomalib_aupro,
                    "200 thresholds, region by region": loop_pro},
            "P-AUROC": {"ours, exact": metrics.pixel_auroc, "scikit-learn": lambda maps,
                        masks: roc_auc_score(masks.ravel(), maps.ravel())}}
    rows = []
    for metric, methods in ways.items():
        ours = None
        for method, function in methods.items():
            values: list = []
            try:
                seconds = machine.best_seconds(lambda function=function,
                                               values=values: values.append(function(maps, masks)),
                                               1 if function is loop_pro else 5)
            except ImportError as error:
                print(f"{method} is not measured: {error}")
                continue
            ours = ours or seconds
            rows.append(about | dict(metric=metric, method=method, value=float(values[-1]), seconds=seconds,
                                     times_ours=seconds / ours))
    return [*rows, about | dict(num_maps=largest, metric="PRO", method="ours, exact",
                                megabytes=round(peak_megabytes(largest, size)))]


def drawn_maps(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise that is somewhat higher where the masks say so, float32 and bool (count, size, size); a third are
    good.
    """
    random = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(random.standard_normal((count, size, size), np.float32), (0, size / 64, size / 64))
    masks = np.zeros(maps.shape, bool)
    for mask in masks[: 2 * count // 3]:
        for _ in range(random.integers(1, 4)):
            top, left, height, width = random.integers(1, size // 4, 4)
            mask[3 * top:3 * top + height, 3 * left:3 * left + width] = True
    return maps + maps.std() * masks, masks


def loop_pro(maps: np.ndarray, masks: np.ndarray, fpr_limit: float = 0.3) -> float:
    """PRO as most repositories compute it: 200 thresholds, each region of each image by itself."""
    fpr, overlap = [], []
    for threshold in np.linspace(maps.max(), maps.min(), 201)[1:]:
        flagged, shares = maps > threshold, []
        for image_flagged, mask in zip(flagged, masks):
            regions, count = ndimage.label(mask, metrics.EIGHT_CONNECTED)
            shares += [image_flagged[regions == region].mean() for region in range(1, count + 1)]
        overlap.append(np.mean(shares))
        fpr.append(flagged[~masks].mean())
    fpr, overlap = np.array(fpr), np.array(overlap)
    kept = fpr < fpr_limit
    return float(np.trapezoid(overlap[kept], fpr[kept] / fpr[kept].max()))


def anomalib_aupro(maps: np.ndarray, masks: np.ndarray) -> float:
    """anomalib's AUPRO; ImportError where it isn't installed."""
    make_torchvision_importable()
    from anomalib.metrics.aupro import _AUPRO
    metric = _AUPRO(fpr_limit=0.3)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
    return float(metric.compute())


def peak_megabytes(num_maps: int, size: int) -> float:
    """The most memory that `metrics.pro` holds beside its input, as NumPy counts it."""
    maps, masks = drawn_maps(num_maps, size)
    tracemalloc.start()
    metrics.pro(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6
