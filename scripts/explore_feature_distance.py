"""How phi's features are compared: by cosine, as in the paper, or in units of how those of normal images differ from
those of their reconstructions (`feature_distance`).

    python scripts/explore_feature_distance.py --data-root DIR --work DIR [--categories pill,screw] [--change "none"]
                                               [--out FILE]

On validation data only, as in explore_calibration.py, whose defects and lights these are.  The detectors are those of
explore_training.py, and the same --work shares their trainings; --change names one.

Appends rows to the CSV, skips pairs that stand there, and goes on with trainings that were stopped.
feature-distance.md beside the CSV is made from it at the end.
"""
import time
from pathlib import Path

import pandas as pd
from explore_calibration import NUMBERS, by_place, in_each_way
from explore_training import fitted, run_on_trained, trained_in_words
from torch import Tensor
from validation_data import scores

from d3ad import D3AD
from d3ad.calibration import fuse
from d3ad.detector import Prediction
from d3ad.infra.files import write_whole
from d3ad.study.readme.cells import in_one_cell, markdown_table

# distance, and which maps are standardised besides
WAYS = (("cosine", ("feature",)), ("cosine", ()), ("mahalanobis", ("feature",)), ("mahalanobis", ()))
WEIGHTS = (0.0, 0.3, 0.5, 0.7, 1.0)
COLUMNS = ["category", "change", "place", "seen", "defects", "distance", "standardised", "weight", *NUMBERS, "minutes"]


def measure(category: str, change: str, root: Path, work: Path) -> list[dict]:
    """All rows of one category and training."""
    started = time.perf_counter()
    found, images, held = fitted(category, change, root, work)
    defects, rows = by_place(held, images), []
    for distance, standardised in WAYS:
        way = found.variant(feature_distance=distance, standardise=standardised)

        def maps_of(prediction: Prediction, weight: float, way: D3AD = way) -> Tensor:
            return fuse(prediction.latent_map, prediction.feature_map, prediction.t_hat, way.calibration, weight,
                        way.config.sigma_pixels, "train")[0]

        for seen, good, changed in in_each_way(held, defects):
            good = way.predict(good)
            for (place, kind), (bad, masks) in changed.items():
                bad = way.predict(bad)
                rows += [dict(category=category, change=change, place=place, seen=seen, defects=kind, distance=distance,
                              standardised=" ".join(standardised), weight=weight,
                              **scores(maps_of(good, weight), maps_of(bad, weight), masks)) for weight in WEIGHTS]
    minutes = round((time.perf_counter() - started) / 60, 1)
    return [row | dict(minutes=minutes) for row in rows]


PAGE = """# How features are compared

[Back to the README](../README.md) · [settings](settings.md) · [calibration](calibration.md) ·
[training](training.md) · [other maps](maps-tried.md)

Made by `scripts/explore_feature_distance.py` from `feature-distance.csv`, on validation data only: a fifth of the
normal training images, held out, and synthetic defects on them, as on [the page on calibration](calibration.md). One
seed. The detectors are those of [the page on training](training.md), with these of its changes:
{trained}.

The feature map compares phi of the image with phi of its reconstruction, place by place (Section 4.2). In the paper the
distance is cosine: every direction counts the same. But no reconstruction is perfect, and what it loses is always much
the same: fine grain, small spots that good parts have, the sharpness of an edge. `feature_distance = "mahalanobis"`
measures by how much normal images' features differ from those of *their* reconstructions, over all places of the images
that calibrate and over their steps T-hat, and counts differences in that unit:

f_map = (d - m)^T S^-1 (d - m) / C, with d = phi(x) - phi(x-hat), and m and S the mean and covariance of d over normal
images, for each block of C channels. The code is `maps.mahalanobis_distance`; m and S are `Spread` of
`d3ad/infra/spread.py`. A hundredth of the mean variance is added to that of each channel (`SHRINKAGE`), or directions
in which features hardly differ would outweigh all others; a tenth and a thousandth of it changed little when tried
on pill and tiles. The distance is not in the paper. All profiles for real photographs on a CPU take it with lambda
0.5: `parts` (the profile of `fit`), `mvtec-cpu`, `mvtec-taef2`, `mtd` and `elpv`. `demo` and the profiles for a GPU
keep the cosine distance.

Cells: I-AUROC / P-AUROC / PRO, percent, mean over both kinds of defects, both kinds of places, and images as they are,
relit and moved. *Standardised*: the feature map is in units of each pixel's standard deviation, too.
*lambda*: the weight of the latent map, 0 for the feature map alone and 1 for the latent map alone.

**Test images had been looked at before**: whole images of pill and screw were told apart badly. So the question comes
from test images. The answer doesn't: every number below is of validation data. When `mvtec-cpu`, and later `mtd` and
`elpv`, took this setting, the test results of both distances on [own parts](own-parts.md#what-to-expect) were known.

## On average

{average}

- Best with the cosine distance: {best[cosine]}.
- Best with the Mahalanobis distance: {best[mahalanobis]}.

What this says:

- **The feature map alone gains most,** in every category: with the cosine distance it is by far the weaker of the two
  maps. So the best lambda falls.
- **What both maps together gain differs.** Pills and tiles gain most; their good images have specks and grain that may
  lie anywhere. Screws and transistors change little, and on bottles the outlines (PRO) are found less well.
- **`standardise` matters less with it.** The distance has a unit already, what normal images show, one for all places
  and steps. What each pixel's own standard deviation adds is small, and not the same everywhere.
- **Test images agree in part.** [The page on own parts](own-parts.md#what-to-expect) has both distances on the same
  trained networks, and not every part gains. Real defects are not all like the synthetic ones: on an uneven tile, for
  one, the light of a whole region differs. [The tables of baselines](baselines.md#measured) have, for each
  profile with this distance, D3AD beside *the paper's maps*: cosine, the paper's lambda, nothing standardised.
- **Not measured on validation data**: features that are adapted (Eq. 10), and those of another network. [The page on
  GPUs](gpu.md#two-categories-measured) has both at once, on the test images of one category.

## By category

{tables}
"""
SETTING = ["distance", "standardised", "weight"]


def means_of(source: Path) -> pd.DataFrame:
    """The metrics of each category and SETTING, over defects, places and lights."""
    rows = pd.read_csv(source, keep_default_na=False).astype({"weight": float} | dict.fromkeys(NUMBERS, float))
    return rows.groupby(["category", *SETTING], sort=False)[NUMBERS].mean()


def write_tables(source: Path) -> None:
    """feature-distance.md beside the CSV.  Raises ValueError where it holds two trainings of a category."""
    rows = pd.read_csv(source, keep_default_na=False)
    trained = trained_in_words(rows, source)
    each = means_of(source)
    means = each.groupby(SETTING, sort=False).mean()
    best = {distance: _words(part.mean(axis=1).idxmax()) + f": {in_one_cell(part.loc[part.mean(axis=1).idxmax()])}"
            for distance, part in means.groupby("distance")}
    tables = []
    for category, part in each.groupby("category", sort=False):
        tables += [f"### {category.capitalize()}", "", _table(part.droplevel("category")), ""]
    page = PAGE.format(trained=trained, average=_table(means), best=best, tables="\n".join(tables).rstrip())
    write_whole(source.with_suffix(".md"), page)


def _words(setting: tuple[str, str, float]) -> str:
    """One of SETTING."""
    _, standardised, weight = setting
    return ("standardised" if standardised else "not standardised") + f", lambda {weight:g}"


def _table(means: pd.DataFrame) -> str:
    """A line for each way, a column for each lambda."""
    lines = [[distance, "yes" if standardised else "no", *(in_one_cell(part.xs(weight, level="weight").iloc[0])
                                                           for weight in WEIGHTS)]
             for (distance, standardised), part in means.groupby(SETTING[:2], sort=False)]
    return markdown_table(["distance", "standardised", *(f"lambda {weight:g}" for weight in WEIGHTS)], lines)


if __name__ == "__main__":
    run_on_trained(__doc__.split("\n\n")[0], "feature-distance.csv", COLUMNS, measure, write_tables)
