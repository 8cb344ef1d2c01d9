"""What makes a detector robust to another day, what the calibration rests on, and which maps to standardise.

    python scripts/explore_calibration.py --data-root DIR --work DIR [--categories screw,pill] [--train-moved 0,8]
                                          [--out FILE]

On validation data only, as in explore_settings.py.  For each category, detectors with the settings chosen are trained,
with or without moved copies of the training images (`train_moved`).  Of their maps neither, one, or both are then
standardised: by normal images that were trained on, or by some that were not, with a small or a large share of the mean
standard deviation added to each pixel's (`calibration.FLOOR`).

Defects lie in two kinds of places: anywhere, and where parts vary (`by_place`).  Good and defective validation images
are seen as they are, in another light (a random gain of 0.85 to 1.05), and moved by up to 3 of 128 pixels: photographs
of another day differ in such ways from those that a detector was trained on.

Appends rows to the CSV, skips categories that stand there, and goes on with trainings that were stopped.
calibration.md beside the CSV is made from it at the end.
"""
import argparse
import itertools
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from csv_rows import add_missing
from explore_settings import LEVELS
from settings_page import RECOMMENDED
from torch import Tensor
from validation_data import CATEGORIES, auroc, scores, split, validation

from d3ad import D3AD, Config, from_scratch, maps
from d3ad.calibration import FLOOR, at_step, level_statistics
from d3ad.data.apart import set_apart, spread_over
from d3ad.data.moving import in_light, window
from d3ad.infra.files import ROOT, write_whole
from d3ad.study.readme.cells import in_one_cell, markdown_table

SHARE = 0.2
CANDIDATES = 8
COLUMNS = ["category", "train_moved", "place", "seen", "defects", "standardised", "calibrated_on", "floor", "weight",
           "i_auroc", "p_auroc", "pro", "distance_auroc", "minutes"]
# which maps are standardised, by which normal images, and with which floor
CHOICES = [("neither", "", ""), ("both", "trained on", 1.0),
           *itertools.product(["both", "latent", "feature"], ["unseen"], (0.5, 1.0, 2.0))]
WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)


def by_place(held: Tensor, normal: Tensor) -> dict[tuple[str, str], tuple[Tensor, Tensor]]:
    """Defective images (N, 3, H, W) and masks (N, H, W) by place and kind, one of each for every image held out.

    normal: (M, 3, H, W), the training images, which say where parts vary.  "where parts vary": the one of `CANDIDATES`
    defects under which `variation` is largest.  One drawn with a probability in proportion to it would lie almost
    anywhere: most places vary a little, and together they outweigh the few that vary much.
    """
    draws = [validation(held, draw) for draw in range(CANDIDATES)]
    found = {("anywhere", kind): pair for kind, pair in draws[0].items()}
    for kind in draws[0]:
        images, masks = (torch.stack(part) for part in zip(*(draw[kind] for draw in draws)))
        best, each = variation(masks, normal).argmax(0), torch.arange(len(held))
        found["where parts vary", kind] = images[best, each], masks[best, each]
    return found


def variation(masks: Tensor, normal: Tensor) -> Tensor:
    """How much normal images (M, 3, H, W) differ under masks (..., H, W): the mean of the pixels' standard deviations.

    The mean over a defect smooths them enough.
    """
    spread = normal.std(0).mean(0)
    return (masks * spread).sum((-2, -1)) / masks.sum((-2, -1)).clamp(min=1)


def as_it_is(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As held out."""
    return images, masks


def relit(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image (3, H, W) under a light of its own."""
    gain = 0.85 + 0.2 * torch.rand(len(images), 1, 1, 1, generator=generator)
    return in_light(images, gain), masks


def moved(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image, with its mask, moved by up to 3 of 128 pixels, its border repeated; other moves than in training."""
    reach, parts = round(3 * images.shape[-1] / 128), []
    for image, mask in zip(images, masks, strict=True):
        top, left = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
        parts.append(window(torch.cat([image, mask[None]]), top, left, reach))
    both = torch.stack(parts)
    return both[:, :3], both[:, 3]


SEEN = {"as it is": as_it_is, "relit": relit, "moved": moved}


def in_each_way(held: Tensor, defects: dict[tuple[str, str], tuple[Tensor, Tensor]]
                ) -> Iterator[tuple[str, Tensor, dict]]:
    """Each of SEEN: its name, the good images held out, and the defective ones with masks as `by_place` has them."""
    for seen, change in SEEN.items():
        good, _ = change(held, torch.zeros_like(held[:, 0]), torch.Generator().manual_seed(3))
        yield seen, good, {where: change(bad, masks, torch.Generator().manual_seed(4))
                           for where, (bad, masks) in defects.items()}


def raw_maps(found: D3AD, images: Tensor) -> dict[str, Tensor]:
    """Both maps (N, H, W) before any normalisation, T-hat and distance (N,)."""
    prediction = found.predict(images)
    return dict(latent=prediction.latent_map, feature=prediction.feature_map, t_hat=prediction.t_hat,
                distance=prediction.distance)


def standardised(raw: dict[str, Tensor], levels: list[dict[str, Tensor]], kind: str, floor: float) -> Tensor:
    """One kind of map in units of what normal images show at each of LEVELS; `floor`: as in `level_statistics`."""
    mean, std = level_statistics([level[kind] for level in levels], floor)
    return (raw[kind] - at_step(LEVELS, mean, raw["t_hat"])) / at_step(LEVELS, std, raw["t_hat"])


def compared(good: dict[str, Tensor], bad: dict[str, Tensor], masks: Tensor, own: dict[str, dict],
             levels: dict[str, list[dict]], sigma: float) -> Iterator[tuple[tuple, float, dict[str, float]]]:
    """Metrics, in percent, of each of CHOICES and WEIGHTS.

    good, bad: raw maps of good and of defective images; masks: (N, H, W) of these.  own, levels: raw maps of normal
    images, by whether they were trained on: at their own steps, and at each of LEVELS.  sigma: in pixels.
    """
    for choice in CHOICES:
        which, name, floor = choice
        usual, shown = own[name or "unseen"], []
        for part in ("latent", "feature"):
            *both, of_usual = (standardised(raw, levels[name], part, floor) if which in (part, "both") else raw[part]
                               for raw in (good, bad, usual))
            shown.append([maps.min_max(x, of_usual.min(), of_usual.max()) for x in both])
        for weight in WEIGHTS:
            yield choice, weight, scores(*(maps.anomaly_map(*pair, weight, sigma) for pair in zip(*shown)), masks)


def measure(category: str, copies: int, root: Path, work: Path) -> list[dict]:
    """All rows of one category and number of moved copies."""
    started = time.perf_counter()
    config = Config(**tomllib.loads(RECOMMENDED) | dict(name="explored", image_size=128, device="cpu",
                                                        calibration_share=SHARE, train_moved=copies))
    images, held = split(category, root, config.image_size)
    folder, train = work / category, set_apart(images, SHARE)[0]
    codec = from_scratch.fit_codec(train, config, folder / "autoencoder", {})
    found = D3AD(config).fit(images, folder / f"moved-{copies}", codec)
    at = [found.variant(dynamic=False, t_max=int(level), standardise=()) for level in LEVELS]
    normal = {"trained on": spread_over(train, 40), "unseen": spread_over(found.calibration_images, 40)}
    levels = {name: [raw_maps(fixed, few) for fixed in at] for name, few in normal.items()}
    own = {name: raw_maps(found, few) for name, few in normal.items()}
    sigma, defects, rows = config.sigma_pixels, by_place(held, images), []
    for seen, good, changed in in_each_way(held, defects):
        good = raw_maps(found, good)
        for (place, kind), (bad, masks) in changed.items():
            bad = raw_maps(found, bad)
            distance = auroc(good["distance"], bad["distance"])
            for (which, name, floor), weight, metrics in compared(good, bad, masks, own, levels, sigma):
                rows.append(dict(category=category, train_moved=copies, place=place, seen=seen, defects=kind,
                                 standardised=which, calibrated_on=name, floor=floor, weight=weight,
                                 distance_auroc=distance, **metrics))
    minutes = round((time.perf_counter() - started) / 60, 1)
    return [row | dict(minutes=minutes) for row in rows]


PAGE = """# Which maps to standardise, and parts that lie elsewhere

[Back to the README](../README.md)

Made by `scripts/explore_calibration.py` from `calibration.csv`, on validation data only, as
[the other settings](settings.md): a fifth of the normal training images, held out (41 to 64 of a category), and
synthetic defects on them. One seed. Features are compared by the cosine distance.

**Test images had been looked at before,** with standardised maps and without. They suggested that standardising hurts
where defects lie in places that vary from one good image to the next. So the question comes from test images. The
answer doesn't: every number below is of validation data.

- *Standardised*: maps in standard deviations of normal images' maps, pixel by pixel: neither map, both, or one.
- *Floor*: the share of the mean standard deviation that is added to each pixel's.
- *lambda*: the weight of the latent map.
- *Anywhere*: defects as they are drawn. *Where parts vary*: of {candidates} defects drawn on each image, the one under
  which the training images' pixels vary most.
- *As it is, relit, moved*: good and defective images as held out, each under a light of its own (a gain of 0.85 to
  1.05), or moved by up to 3 of 128 pixels, as photographs of another day might be. A table that doesn't name them has
  the mean over all three.

Cells: I-AUROC / P-AUROC / PRO, percent, mean over both kinds of defects. *Mean*: of all numbers of a line.

## Which setting is best

Mean over {categories}.
Floor and lambda are the best of each line, one for all categories and both places. The
diffusion model learned from {copies} moved copies of each training image.

{best}

- The best of all: standardised {chosen}: mean {highest:.1f}.
- Chosen: standardised {used}: mean {mean:.1f}. The profiles for real photographs on a CPU still
  standardise the same, but [compare features in another way](feature-distance.md), with lambda 0.5.
- In the profiles for real photographs before, and still in `demo` ([demo-maps.csv](demo-maps.csv), from synthetic
  images of another seed): standardised {earlier}: mean {before:.1f}.

What this says:

- **The maps want different things.** The feature map gains much from being standardised. The latent map alone hardly
  gains where defects lie anywhere, and loses where parts vary ([each map alone](#each-map-alone)).
- **What the test images suggested shows here.** Where parts vary, both maps standardised at lambda 0.5 find defects'
  pixels less well (P-AUROC, PRO) than neither at lambda 0.7, in all four categories. On average, whole images (I-AUROC)
  are classified as well.
- **A lambda of 0.7 is on average as good as 0.5 or better,** whichever maps are standardised. The floor hardly matters.
- **How sure this is.** On images as they are, the three ways to standardise hardly differ. On relit and moved ones,
  standardising only the feature map is the best of the three; on relit images with defects where parts vary,
  standardising neither is better still ([by what is seen](#by-what-is-seen)). Pill, screw and bottle agree. Transistor
  doesn't: it prefers the latent map standardised, most of all where parts vary. Without bottle, the latent map would
  have been chosen. Differences of less than a point say little with so few images. The tiles were not measured.

### By category

The same settings.

{by_category}

### By what is seen

The same settings.

{by_seen}

### By lambda

Floor {floor}.

{by_weight}

### By floor

lambda {weight}. *Calibrated on*: the normal images that give mean and standard deviation of the maps, per pixel.

{by_floor}

### Each map alone

lambda 0 is the feature map, 1 the latent map. Floor {floor}.

{alone}

## Parts that lie elsewhere

*Moved copies*: how many copies of each training image, moved by up to 3 of 128 pixels, the diffusion model also learns
from.
{moved}, defects anywhere, floor {floor}, lambda {weight}. Chosen: {copies}.

{by_copies}

## One by one

Floor {floor}, lambda {weight}.

{one_by_one}
"""
NUMBERS = ["i_auroc", "p_auroc", "pro"]
SETTING = ["standardised", "floor", "lambda"]
EARLIER = ("both", "1.0", "0.5")


def write_tables(source: Path) -> None:
    """calibration.md beside the CSV."""
    rows = pd.read_csv(source, dtype={"floor": str, "calibrated_on": str}).fillna({"floor": "", "calibrated_on": ""})
    rows = rows.assign(**{"lambda": rows["weight"].map("{:g}".format), "moved copies": rows["train_moved"]})
    used, floor = tomllib.loads(RECOMMENDED), f"{FLOOR:.1f}"
    weight = f"{used['weight']:g}"
    trained = rows[rows["train_moved"] == used["train_moved"]]
    unseen = trained[trained["calibrated_on"] != "trained on"]
    means = unseen.groupby(SETTING, sort=False)[NUMBERS].mean().mean(axis=1)
    best = unseen.set_index(SETTING).loc[list(means.groupby("standardised", sort=False).idxmax())].reset_index()
    of_floor = rows[rows["floor"].isin(["", floor]) & (rows["calibrated_on"] != "trained on")]
    now = of_floor[of_floor["train_moved"] == used["train_moved"]]
    twice = of_floor.groupby("category")["train_moved"].transform("nunique") > 1
    which = {(): "neither", ("feature",): "feature", ("latent",): "latent"}.get(tuple(used["standardise"]), "both")
    setting = (which, floor if used["standardise"] else "", weight)
    one_map = now[now["weight"].isin([0, 1]) & now["standardised"].isin(["neither", "both"])]
    text = PAGE.format(
        candidates=CANDIDATES, copies=used["train_moved"], floor=floor, weight=weight,
        categories=", ".join(trained["category"].unique()),
        best=_table(best, SETTING, "place", mean=True), mean=means[setting], highest=means.max(),
        earlier=_words(EARLIER), before=means[EARLIER],
        used=_words(setting), chosen=_words(means.idxmax()),
        by_seen=_table(best, ["seen", "place"], "standardised"),
        by_category=_table(best, ["category", "place"], "standardised"),
        by_weight=_table(now[now["lambda"].isin(["0.3", "0.5", "0.7", "0.85"])], ["standardised", "lambda"], "place",
                         mean=True),
        by_floor=_table(trained[trained["lambda"] == weight], ["standardised", "calibrated_on", "floor"], "place",
                        mean=True),
        alone=_table(one_map.sort_values("weight", kind="stable"), ["lambda", "standardised"], "place"),
        moved=", ".join(of_floor[twice]["category"].unique()),
        by_copies=_table(of_floor[twice & (of_floor["place"] == "anywhere") & (of_floor["lambda"] == weight)
                                  & of_floor["standardised"].isin(["neither", "both"])],
                         ["category", "seen", "standardised"], "moved copies"),
        one_by_one=_table(now[now["lambda"] == weight], ["category", "place", "seen"], "standardised"))
    write_whole(source.with_suffix(".md"), text)


def _words(setting: tuple[str, str, str]) -> str:
    """One of SETTING, to follow "standardised"."""
    which, floor, weight = setting
    return which + (f" (floor {floor})" if floor else "") + f", lambda {weight}"


def _table(rows: pd.DataFrame, lines: list[str], across: str, mean: bool = False) -> str:
    """A line for each combination of `lines`, a column for each value of `across`, with the three metrics in each
    cell."""
    columns, found = rows[across].unique(), []
    for names, part in rows.groupby(lines, sort=False):
        cells = [part.loc[part[across] == value, NUMBERS].mean() for value in columns]
        found.append([*names, *map(in_one_cell, cells)])
        if mean:
            found[-1].append(f"{pd.concat(cells).mean():.1f}")
    head = [*lines, *(f"{value} {across}" if across == "moved copies" else value for value in columns)]
    return markdown_table([title.replace("_", " ") for title in head] + ["mean"] * mean, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--train-moved", default="8", help="copies of each training image, with commas")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "calibration.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    jobs = itertools.product(args.categories.split(","), map(int, args.train_moved.split(",")))
    add_missing(args.out, COLUMNS, ("category", "train_moved"), jobs,
                lambda category, copies: measure(category, copies, args.data_root, args.work))
    write_tables(args.out)


if __name__ == "__main__":
    main()
