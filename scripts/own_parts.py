"""How many defects `python -m d3ad fit` and `predict` find on parts of one's own, with its default settings.

    python scripts/own_parts.py --data-root DIR --work DIR [--only tiles,bottle] [--out results/parts/own_parts.csv]

DIR holds MVTec AD and the magnetic tiles under their usual names; the buttons are drawn.  A fifth of the good
photographs sets the threshold, as in `fit`, for 1 % and for 5 % of false alarms, as asked.  All other photographs of
the dataset are then judged.  Of the tiles MT_Free is the folder of good ones, and every other folder holds defects; of
the others it is the published split.

Appends a row per part and rate to the CSV, skips parts that stand there, and goes on with trainings that were stopped.
"""
import argparse
import time
from pathlib import Path

import torch
from csv_rows import append_rows, rows_in

from d3ad import Config, data, metrics
from d3ad.app.part import EXAMPLE, fit_part, split_off
from d3ad.calibration import threshold_for
from d3ad.data import synthetic
from d3ad.infra.devices import processor_name
from d3ad.infra.versions import commit

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("button", "tiles", "bottle", "pill", "screw", "transistor")
COLUMNS = ["part", "trained_on", "set_threshold", "good", "defective", "asked_false_alarms", "expected_false_alarms",
           "measured_false_alarms", "measured_found", "measured_i_auroc", "minutes", "processor", "commit", "profile"]
HELD_OUT = 0.2


def images_of(part: str, root: Path, work: Path, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Good images to fit on, images to judge, (N, 3, size, size) each, and the labels of the latter, 1 = defective."""
    if part == "tiles":
        dataset = data.load("mtd", root, "tiles")
        rest, labels = dataset.images("test", size), dataset.labels("test")
        return torch.cat([dataset.images("train", size), rest[labels == 0]]), rest[labels == 1], labels[labels == 1]
    if part == "button":
        layout, drawing, *counts = EXAMPLE
        synthetic.write(work / "drawn", layout, drawing, *counts, seed=0)
        dataset = data.load(layout, work / "drawn", drawing)
    else:
        dataset = data.load("mvtec", root, part)
    return dataset.images("train", size), dataset.images("test", size), dataset.labels("test")


def measure(part: str, root: Path, work: Path) -> list[dict]:
    """A row for each rate of false alarms; false alarms and I-AUROC only where good photographs are judged."""
    started, config = time.perf_counter(), Config.profile("parts", device="cpu")
    good, new, labels = images_of(part, root, work, config.image_size)
    found, trained_on = fit_part(good, config, HELD_OUT, folder=work / part)
    held = split_off(good, HELD_OUT, config.seed)[1]
    usual, score = found.predict(held).score, found.predict(new).score
    has_good, rows = bool((labels == 0).any()), []
    for rate in (0.01, 0.05):
        threshold = threshold_for(usual, rate)
        alarms = score > threshold.value
        rows.append(dict(
            part=part, trained_on=trained_on, set_threshold=len(held), good=int((labels == 0).sum()),
            defective=int((labels == 1).sum()), asked_false_alarms=100 * rate,
            expected_false_alarms=round(100 * threshold.expected_rate, 2),
            measured_false_alarms=round(100 * float(alarms[labels == 0].float().mean()), 1) if has_good else "",
            measured_found=round(100 * float(alarms[labels == 1].float().mean()), 1),
            measured_i_auroc=round(100 * metrics.image_auroc(score, labels), 1) if has_good else ""))
    minutes = round((time.perf_counter() - started) / 60, 1)
    about = dict(minutes=minutes, processor=processor_name(), commit=commit(), profile=config.name)
    return [row | about for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "parts" / "own_parts.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for part in args.only.split(","):
        if any(row["part"] == part for row in rows_in(args.out)):
            continue
        rows = measure(part, args.data_root, args.work)
        append_rows(args.out, COLUMNS, rows)
        print(part, *(f"{row['asked_false_alarms']:g} %: {row['measured_found']} % found" for row in rows), flush=True)


if __name__ == "__main__":
    main()
