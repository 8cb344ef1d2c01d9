"""How many defects `python -m d3ad fit` and `predict` find on parts of one's own, with its default settings.

    python scripts/own_parts.py --data-root DIR --work DIR [--only tiles,bottle] [--out results/parts/own_parts.csv]

DIR holds MVTec AD and the magnetic tiles under their usual names; the buttons are drawn.  A fifth of the good
photographs sets the threshold, as in `fit`, for 1 % and for 5 % of false alarms, as asked.  All other photographs of
the dataset are then judged.  Of the tiles MT_Free is the folder of good ones, and every other folder holds defects; of
the others it is the published split.  Each detector also judges them by the cosine distance, as the paper compares
features and as `fit` did at first (docs/feature-distance.md).

Appends a row per part, distance and rate to the CSV, skips parts that stand there, and goes on with trainings that were
stopped.
"""
import argparse
import time
from pathlib import Path

import torch
from csv_rows import add_missing
from torch import Tensor

from d3ad import D3AD, Config, data
from d3ad.app.part import EXAMPLE, fit_part, split_off
from d3ad.data import synthetic
from d3ad.infra.devices import processor_name
from d3ad.infra.files import ROOT
from d3ad.infra.thresholds import threshold_for
from d3ad.infra.versions import commit
from d3ad.study.outcome import evaluate

PARTS = ("button", "tiles", "bottle", "pill", "screw", "transistor")
COLUMNS = ["part", "feature_distance", "trained_on", "set_threshold", "good", "defective", "asked_false_alarms",
           "expected_false_alarms", "measured_false_alarms", "measured_found", "measured_i_auroc", "measured_p_auroc",
           "measured_pro", "minutes", "processor", "commit", "profile"]
HELD_OUT = 0.2
COSINE = dict(feature_distance="cosine", standardise=("feature",), weight=0.7)  # as docs/calibration.md chose


def images_of(part: str, root: Path, work: Path, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Good images to fit on, images to judge, (N, 3, size, size) each, and of the latter the labels, 1 = defective, and
    masks (N, size, size).
    """
    if part == "tiles":
        dataset = data.load("mtd", root, "tiles")
        rest, labels, masks = (dataset.images("test", size), dataset.labels("test"), dataset.masks("test", size))
        good, bad = labels == 0, labels == 1
        return torch.cat([dataset.images("train", size), rest[good]]), rest[bad], labels[bad], masks[bad]
    if part == "button":
        layout, drawing, *counts = EXAMPLE
        synthetic.write(work / "drawn", layout, drawing, *counts, seed=0)
        dataset = data.load(layout, work / "drawn", drawing)
    else:
        dataset = data.load("mvtec", root, part)
    return (dataset.images("train", size), dataset.images("test", size), dataset.labels("test"),
            dataset.masks("test", size))


def measure(part: str, root: Path, work: Path) -> list[dict]:
    """A row for each distance and rate of false alarms."""
    started, config = time.perf_counter(), Config.profile("parts", device="cpu")
    good, new, labels, masks = images_of(part, root, work, config.image_size)
    found, trained_on = fit_part(good, config, HELD_OUT, folder=work / part)
    held, rows = split_off(good, HELD_OUT, config.seed)[1], []
    for way in (found, found.variant(**COSINE)):
        counts = dict(part=part, feature_distance=way.config.feature_distance, trained_on=trained_on,
                      set_threshold=len(held))
        rows += [counts | judged for judged in _judged(way, held, new, labels, masks)]
    minutes = round((time.perf_counter() - started) / 60, 1)
    about = dict(minutes=minutes, processor=processor_name(), commit=commit(), profile=config.name)
    return [row | about for row in rows]


def _judged(found: D3AD, held: Tensor, new: Tensor, labels: Tensor, masks: Tensor) -> list[dict]:
    """What a detector says of new images under each rate; false alarms and the metrics only where good ones are among
    them.

    held: good images that set the threshold.
    """
    usual, prediction = found.predict(held).score, found.predict(new)
    is_good, rows = labels == 0, []
    metric = evaluate(prediction, labels, masks) if is_good.any() else {}
    for rate in (0.01, 0.05):
        threshold = threshold_for(usual, rate)
        alarms = (prediction.score > threshold.value).float()
        rows.append(dict(
            good=int(is_good.sum()), defective=int((~is_good).sum()), asked_false_alarms=100 * rate,
            expected_false_alarms=round(100 * threshold.expected_rate, 2),
            measured_false_alarms=round(100 * float(alarms[is_good].mean()), 1) if is_good.any() else "",
            measured_found=round(100 * float(alarms[~is_good].mean()), 1),
            **{f"measured_{name}": round(100 * metric[name], 1) if metric else ""
               for name in ("i_auroc", "p_auroc", "pro")}))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "parts" / "own_parts.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    add_missing(args.out, COLUMNS, ("part",), ((part,) for part in args.only.split(",")),
                lambda part: measure(part, args.data_root, args.work))


if __name__ == "__main__":
    main()
