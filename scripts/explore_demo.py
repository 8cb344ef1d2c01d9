"""Which maps the demo profile standardises, and lambda, on validation data: synthetic images of another seed.

    python scripts/explore_demo.py [--out FILE]

Takes the demo's own detectors, from the cache or trained now.  Of each category 20 good and 40 defective pictures are
drawn under `SEED`, which no result uses.  Writes docs/demo-maps.csv: a row for each category, kinds of maps and lambda.
"""
import argparse
import itertools
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from d3ad import data
from d3ad.data import synthetic
from d3ad.infra.files import ROOT
from d3ad.study.ablations import METRICS
from d3ad.study.outcome import evaluate
from d3ad.study.workspace import Run, open_workspace

SEED, GOOD, BAD = 100, 20, 40
MAPS = {"neither": (), "feature": ("feature",), "both": ("latent", "feature")}
WEIGHTS = (0.5, 0.7)


def validation(run: Run) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and masks of a category drawn under `SEED`."""
    root, size = run.workspace.cache / "validation", run.config.image_size
    synthetic.write(root, run.name, run.category, 1, GOOD, BAD, seed=SEED)
    drawn = data.load(run.name, root, run.category)
    return drawn.images("test", size), drawn.labels("test"), drawn.masks("test", size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "demo-maps.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    workspace, rows = open_workspace("demo"), []
    for run in workspace.runs():
        images, labels, masks = validation(run)
        prediction = run.detector.predict(images)
        for (kind, standardise), weight in itertools.product(MAPS.items(), WEIGHTS):
            found = run.detector.variant(standardise=standardise, weight=weight).renormalised(prediction, "train")
            numbers = evaluate(found, labels, masks)
            rows.append(dict(category=run.category, standardised=kind, weight=weight)
                        | {metric: round(100 * numbers[metric], 1) for metric in METRICS})
    frame = pd.DataFrame(rows)
    frame.to_csv(options.out, index=False, lineterminator="\n")
    print(frame.groupby(["standardised", "weight"], sort=False)[[*METRICS]].mean().round(1).to_string())


if __name__ == "__main__":
    main()
