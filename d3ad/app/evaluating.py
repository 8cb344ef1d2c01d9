"""Metrics of any number of test images: maps go to a temporary file, and pixels are counted portion by portion.

The numbers are those of `d3ad.metrics`, exact: a pixel of a defect needs to know how many normal pixels score higher,
and these are counted portion by portion.  Memory holds the scores of all anomalous pixels (about 40 bytes
each) and one portion.
"""
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from d3ad import metrics
from d3ad.app.portions import portion_size
from d3ad.data.given import RangeWarning
from d3ad.data.pixels import DEPTHS

# maps and masks (n, H, W), the same each time it is called
Portions = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def evaluate(detector, dataset, keep_small: bool = True, with_masks: bool = True, areas: dict | None = None,
             progress: bool = False) -> dict:
    """I-AUROC, P-AUROC, PRO, PRO of each range of `areas` and of 200 thresholds, as fractions, of a dataset's test
    images.

    Maps are normalised by training images.  keep_small: see `Dataset.masks`.  with_masks: False leaves all but I-AUROC
    None.
    areas: ranges of a region's share of the image by name, see `metrics.pro`.
    Raises ValueError where one class is missing, DataError naming files that can't be read, OSError where the disk has
    no room for the maps.
    """
    size, scores, step = detector.config.image_size, [], portion_size(detector)
    white = detector.white or dataset.white or DEPTHS[-1]  # as `predict` has it; asked once, not for each portion
    starts = range(0, len(dataset.test), step)
    parts = [replace(dataset, test=dataset.test[start:start + step]) for start in starts]
    needed, place = 4 * len(dataset.test) * size ** 2 * with_masks, tempfile.gettempdir()
    if shutil.disk_usage(place).free < needed:  # a mapped file on a full disk would kill the process
        raise OSError(f"{place} has no room for the maps of {len(dataset.test)} images, {needed / 1e9:.1f} GB: set the "
                      "variable TMPDIR to a folder that has")
    with tempfile.TemporaryFile(prefix="d3ad-maps-") as file:
        maps = np.memmap(file, np.float32, "w+", shape=(len(dataset.test), size, size)) if with_masks else None
        for start, part in tqdm(list(zip(starts, parts)), "predict", disable=not progress):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RangeWarning)
                prediction = detector.predict(part.images("test", size, white))
            scores.append(prediction.score.numpy())
            if with_masks:
                maps[start:start + len(part.test)] = prediction.anomaly_map.numpy()

        def portions() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start, part in zip(starts, parts):
                yield np.array(maps[start:start + len(part.test)]), part.masks("test", size, keep_small).numpy()

        found = dict(i_auroc=metrics.image_auroc(np.concatenate(scores), dataset.labels("test")))
        names = ["p_auroc", "pro", *(areas or {}), "pro_200"]
        return found | (pixel_metrics(portions, areas or {}) if with_masks else dict.fromkeys(names))


def pixel_metrics(portions: Portions, areas: dict, fpr_limit: float = 0.3) -> dict[str, float | None]:
    """P-AUROC, PRO, PRO of each range of area (None where no region is of it) and PRO of 200 thresholds, from portions.

    Raises ValueError for NaN, or where normal or anomalous pixels are missing.
    """
    scores, sizes, region_areas, low, high, num_normal, num_pixels = [], [], [], np.inf, -np.inf, 0, 1
    for maps, masks in portions():
        if not np.isfinite(maps).all():
            raise ValueError("pixel scores are NaN or infinite")
        low, high, num_pixels = min(low, maps.min()), max(high, maps.max()), masks[0].size
        num_normal += int((~masks).sum())
        for i in np.flatnonzero(masks.any((1, 2))):
            own, own_sizes, own_areas = metrics.regions_of(maps[i], masks[i])
            scores.append(own)
            sizes.append(own_sizes)
            region_areas.append(own_areas)
    if not scores or not num_normal:
        raise ValueError(f"both normal and anomalous pixels are needed; all are {'anomalous' if scores else 'normal'}")
    scores, sizes = np.concatenate(scores), np.concatenate(sizes)
    order = np.argsort(scores)
    scores, sizes = scores[order], sizes[order]
    thresholds = np.linspace(high, low, 201)[1:]
    above, upto, fpr = (np.zeros(length, np.int64) for length in (len(scores), len(scores), len(thresholds)))
    for maps, masks in portions():
        normal = np.sort(maps[~masks])
        above += len(normal) - np.searchsorted(normal, scores, "right")
        upto += len(normal) - np.searchsorted(normal, scores, "left")
        fpr += len(normal) - np.searchsorted(normal, thresholds, "right")
    pixels = metrics.Pixels(np.empty(0), scores, above / num_normal, upto / num_normal, sizes,
                            np.concatenate(region_areas), num_pixels)
    found = dict(p_auroc=float(np.clip(1 - (pixels.above + pixels.upto).mean() / 2, 0, 1)))
    found |= metrics.pro_of_areas(pixels, {"pro": (0.0, 1.0)} | areas, fpr_limit)
    return found | dict(pro_200=metrics.pro_200_of(pixels, thresholds, fpr / num_normal, fpr_limit))
