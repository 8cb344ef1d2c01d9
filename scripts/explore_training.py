"""What more training, a larger network or larger images would bring: one change of the settings chosen at a time.

    python scripts/explore_training.py --data-root DIR --work DIR [--categories pill,screw] [--changes longer,larger]
                                       [--out FILE]

On validation data only, as in explore_calibration.py, whose defects and lights these are.  Each category's detector is
trained with the settings chosen and one of CHANGES, and features are compared by the cosine distance.

Appends rows to the CSV, skips pairs that stand there, and goes on with trainings that were stopped.  training.md beside
the CSV is made from it at the end.
"""
import argparse
import itertools
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from csv_rows import add_missing, check_one_change
from explore_calibration import NUMBERS, SEEN, SHARE, by_place, in_each_way
from settings_page import RECOMMENDED
from torch import Tensor
from validation_data import CATEGORIES, auroc, scores, split

from d3ad import D3AD, Config, from_scratch
from d3ad.config import AUTOENCODER, DATA
from d3ad.data.apart import set_apart
from d3ad.infra.files import ROOT, write_whole
from d3ad.infra.profiles import profile_names
from d3ad.study.readme import measured
from d3ad.study.readme.cells import in_one_cell, markdown_table, metrics_text

CHANGES = {
    "none": {},
    "3 times the UNet's steps": dict(train_steps=3000),
    "6 times the UNet's steps": dict(train_steps=6000),
    "3 times the autoencoder's steps": dict(autoencoder_steps=3000),
    "16 latent channels": dict(latent_channels=16),
    "latent whitening 1": dict(latent_whitening=1.0),
    "latent whitening 0.5": dict(latent_whitening=0.5),
    "16 latent channels and whitening 0.5": dict(latent_channels=16, latent_whitening=0.5),
    "16 latent channels and whitening 0.5 and 3 times the UNet's steps": dict(latent_channels=16, latent_whitening=0.5,
                                                                              train_steps=3000),
    "a UNet twice as wide": dict(unet_channels=[96, 192, 256]),
    "256 pixels": dict(image_size=256),
    "256 pixels and 3 times the UNet's steps": dict(image_size=256, train_steps=3000),
    "copies in another light": dict(train_light=0.2),
    "copies in another light and 3 times the UNet's steps": dict(train_light=0.2, train_steps=3000),
    "TAEF2 as autoencoder and 3 times the UNet's steps": dict(autoencoder="taef2", latent_channels=32, train_steps=3000,
                                                              autoencoder_weights="~/.cache/d3ad/taef2"),
}
LONGER, USUAL = "3 times the UNet's steps", {"tiles": "none"}  # whose networks other pages rest on
# changes that only add another light, and what they add it to
LIT = {"copies in another light and 3 times the UNet's steps": "3 times the UNet's steps",
       "copies in another light": "none"}
COLUMNS = ["category", "change", "place", "seen", "defects", "weight", *NUMBERS, "distance_auroc", "minutes"]
CHOSEN = tomllib.loads(RECOMMENDED)
TESTED = ("mvtec-cpu", "mvtec-taef2")  # two profiles that differ in the autoencoder, and in the copies' light
WEIGHTS = {0.0: "the feature map alone", CHOSEN["weight"]: "both maps", 1.0: "the latent map alone"}


def fitted(category: str, change: str, root: Path, work: Path) -> tuple[D3AD, Tensor, Tensor]:
    """The detector of one category and change, its normal images (N, 3, H, W), and those held out."""
    config = Config(**CHOSEN | dict(name="explored", image_size=128, device="cpu",
                                    calibration_share=SHARE) | CHANGES[change])
    images, held = split(category, root, config.image_size)
    of_codec = config.hash(*Config.names(DATA, AUTOENCODER))  # the UNet's changes share it
    codec = from_scratch.fit_codec(set_apart(images, SHARE)[0], config, work / category / f"autoencoder-{of_codec}", {})
    return D3AD(config).fit(images, work / category / change.replace(" ", "-"), codec), images, held


def measure(category: str, change: str, root: Path, work: Path) -> list[dict]:
    """All rows of one category and change."""
    started = time.perf_counter()
    found, images, held = fitted(category, change, root, work)
    weighted = {weight: found.variant(weight=weight) for weight in WEIGHTS}
    defects, rows = by_place(held, images), []
    for seen, good, changed in in_each_way(held, defects):
        good = found.predict(good)
        for (place, kind), (bad, masks) in changed.items():
            bad = found.predict(bad)
            for weight, detect in weighted.items():
                shown = [detect.renormalised(said, "train").anomaly_map for said in (good, bad)]
                rows.append(dict(category=category, change=change, place=place, seen=seen, defects=kind, weight=weight,
                                 distance_auroc=auroc(good.distance, bad.distance), **scores(*shown, masks)))
    minutes = round((time.perf_counter() - started) / 60, 1)
    return [row | dict(minutes=minutes) for row in rows]


PAGE = """# What more training would bring

[Back to the README](../README.md) · [settings](settings.md) · [calibration](calibration.md)

Made by `scripts/explore_training.py` from `training.csv`, on validation data only: a fifth of the normal training
images, held out, and synthetic defects on them, as on [the page on calibration](calibration.md). One seed. Each line
changes what it names of [the setting chosen](settings.md#the-setting-chosen) at 128 pixels; *none* is that setting.
Features are compared by the cosine distance, and *both maps* means a lambda of 0.7; the profiles for real photographs
on a CPU have taken [another distance](feature-distance.md) since.

Cells: I-AUROC / P-AUROC / PRO, percent, mean over both kinds of defects, both kinds of places, and images as they are,
relit and moved. *Minutes*: of one core of an AMD EPYC with AVX-512 (for TAEF2 and whitening: of one without, which
is a third as fast), with the measurement and beside other work, those with another light beside the most; a change of
the UNet alone uses the autoencoder of *none* again. Each category has an autoencoder of its own here; in `mvtec-cpu`
all share one.

**Test images had been looked at before,** with the setting *none*: whole images of pill and screw were told apart
badly. So the question comes from test images. The answer doesn't: every number below but those of the last section
is of validation data.

What this says:

- **More steps of the UNet help on all four parts of MVTec AD.** On pill, TAEF2 helps far more, and 16
  whitened latent channels a little more (see below); on the other three nothing else that was tried helps both maps
  together as much, but for [copies in another light](#copies-in-another-light) on bottle. Six times as many steps were
  measured on pill, screw and tiles only. `mvtec-cpu` takes that many: 48,000 images, where the paper's 300 epochs of
  these parts are 54,000 to 90,000. `parts`, the profile of `fit`, takes 3 times as many, since somebody waits for it.
- **A UNet twice as wide helps, too,** measured on screw and transistor: less than three times the steps of the small
  one, and with more computing. Both at once were not tried.
- **Copies in another light help bottles and screws that are darker or brighter as a whole.** The diffusion model
  learns from moved copies of each image; with `train_light = 0.2` each copy is also up to a fifth darker or brighter.
  Bottles and screws that are [relit](#copies-in-another-light) are then told from defects about as well as those that
  are not. Their light changes within the range learned from; shadows and colours were not tried. On the other three
  both maps together change by some tenths of a point, up or down. {where} On validation data it was not
  measured with that profile's number of steps.
- **On the tiles more steps change both maps together little,** though the feature map alone gains. `mtd` keeps its
  steps. The solar cells (`elpv`) were not measured.
- **A pretrained autoencoder helps pills and harms screws.** With TAEF2, which has 32 latent channels, pill gains far
  more than with any other change here. On screw every number is worse than without it at the same number of steps.
  Our explanation, not tested: these latents keep small spots that ours lose, but each screw is turned another way,
  and a small network can't predict so much detail of its thread. So TAEF2 is no setting for all; `mvtec-taef2` is a
  profile of its own, which needs TAEF2's weights. [Test images](#taef2-on-test-images) agree, except that PRO falls
  on pill, too. Screw's test results had been seen before its validation images were evaluated; neither was used to
  choose anything in the profile.
- **Whitened latent channels help, on the whole, pill alone.** The small autoencoder's channels start as principal
  components. The first, mostly brightness, varies far more than the last, which the diffusion model's noise hides.
  With `latent_whitening = 1` all start at one standard deviation, with 0.5 halfway. Pill gains, more with 16 channels
  than with 8. On bottle both maps together change little: the latent map alone gets better, the feature map alone
  much worse. On screw and transistor, PRO is lower than without whitening at the same number of steps. So no profile
  takes it.
- **More steps for the autoencoder trained here help a little,** measured on pill alone. Not taken up yet.
- **Larger images do not help** at the same number of steps, measured on pill alone: defects are found no better, and
  their outlines (PRO) worse. More steps at that size were not tried.

{tables}

## Copies in another light

I-AUROC / P-AUROC / PRO, percent, both maps, mean over both kinds of defects and of places. *Relit*: each image, good or
defective, is up to 15 % darker or 5 % brighter. *with*: copies in another light; what else was changed is the same in
both lines. The question comes from test images: screw's good ones are darker than its training images.

{lights}

## TAEF2 on test images

`mvtec-cpu` and `mvtec-taef2` differ in the autoencoder, and in [copies in another light](#copies-in-another-light),
which `mvtec-taef2` doesn't have. Both have 6 times the UNet's steps, the Mahalanobis distance and a lambda of 0.5.
I-AUROC / P-AUROC / PRO of D3AD, percent; PRO is exact, where [the README's
table](../README.md#results-reported-measured-pending) has 200 thresholds:

{tested}
"""


def write_tables(source: Path) -> None:
    """training.md beside the CSV: a table per category."""
    rows, parts = pd.read_csv(source), []
    for category, of_category in rows.groupby("category", sort=False):
        lines = []
        for change, of_change in of_category.groupby("change", sort=False):
            means = of_change.groupby("weight")[NUMBERS].mean()
            lines.append([change, *(in_one_cell(means.loc[weight]) for weight in WEIGHTS),
                          f"{of_change['minutes'].iloc[0]:.0f}"])
        table = markdown_table(["change", *WEIGHTS.values(), "minutes"], lines)
        parts += [f"## {category.capitalize()}", "", table, ""]
    page = PAGE.format(tables="\n".join(parts).rstrip(), tested=on_test_images(), lights=by_light(rows), where=where())
    write_whole(source.with_suffix(".md"), page)


def by_light(rows: pd.DataFrame) -> str:
    """A table of the changes LIT beside the same without: a line for each category, a column for each way of seeing."""
    both, lines = rows[rows["weight"] == CHOSEN["weight"]], []
    for change in LIT:
        lit, unlit = (set(both.loc[both["change"] == name, "category"]) for name in (change, LIT[change]))
        for category in [name for name in both["category"].unique() if name in lit & unlit]:
            for name, word in ((LIT[change], "without"), (change, "with")):
                of_one = both[(both["category"] == category) & (both["change"] == name)]
                means = of_one.groupby("seen", sort=False)[NUMBERS].mean()
                lines.append([category, word, *(in_one_cell(means.loc[seen]) for seen in SEEN)])
    return markdown_table(["category", "copies in another light", *SEEN], lines)


def where() -> str:
    """Which profiles learn from copies in another light, in a sentence."""
    names = [name for name in profile_names() if Config.profile(name).train_light]
    return f"`{'`, `'.join(names)}` has it." if len(names) == 1 else f"`{'`, `'.join(names)}` have it."


def on_test_images() -> str:
    """A table of D3AD's results in both of TESTED, a line for each category."""
    frames = [measured.table(profile, "benchmark").query("method == 'D3AD'").set_index("category")
              for profile in TESTED]
    lines = [[name, *(metrics_text(frame.loc[name]) for frame in frames)] for name in frames[0].index]
    return markdown_table(["test images", *(f"`{profile}`" for profile in TESTED)], lines)


def trained_in_words(rows: pd.DataFrame, source: Path) -> str:
    """Which of CHANGES the rows of each category, of the file `source`, rest on.  Raises ValueError where a category
    rests on two.
    """
    if (rows.groupby("category")["change"].nunique() > 1).any():
        raise ValueError(f"{source} holds two trainings of a category, which would be mixed: name another --out")
    return "; ".join(", ".join(part["category"].unique()) + f": *{change}*"
                     for change, part in rows.groupby("change", sort=False))


def run_on_trained(description: str, out: str, columns: list[str],
                   measure: Callable[[str, str, Path, Path], list[dict]], write_tables: Callable[[Path], None]) -> None:
    """The command of a page that rests on one detector of these for each category.

    out: the name of its CSV in docs/.  measure: category, change, data root and work folder to rows of `columns`.
    write_tables: makes the page from the CSV.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept, as in explore_training.py")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--change", help=f"one of {'; '.join(CHANGES)}; by default {LONGER!r}, tiles {'none'!r}")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / out)
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [(name, args.change or USUAL.get(name, LONGER)) for name in args.categories.split(",")]
    check_one_change(args.out, jobs)
    add_missing(args.out, columns, ("category", "change"), jobs,
                lambda category, change: measure(category, change, args.data_root, args.work))
    write_tables(args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--changes", default=",".join(CHANGES), help="with commas, of: " + "; ".join(CHANGES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "training.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = itertools.product(args.categories.split(","), args.changes.split(","))
    add_missing(args.out, COLUMNS, ("category", "change"), jobs,
                lambda category, change: measure(category, change, args.data_root, args.work))
    write_tables(args.out)


if __name__ == "__main__":
    main()
