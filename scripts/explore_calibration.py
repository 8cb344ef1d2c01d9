"""What makes a detector robust to another day: moved training images, and what the calibration rests on.

    python scripts/explore_calibration.py --data-root DIR --work DIR [--categories screw,pill] [--out FILE]

On validation data only, as in explore_settings.py.  For each category, detectors with the settings chosen are trained,
without and with moved copies of the training images (`train_moved`).  Their maps are then standardised by normal
images that were trained on, or by some that were not, with a small or a large share of the mean standard deviation
added to each pixel's (`calibration.FLOOR`), or not at all.  Good and defective validation images are seen as they are,
in another light (a random gain of 0.85 to 1.05), and moved by up to 3 of 128 pixels: photographs of another day differ
in such ways from those that a detector was trained on.

Appends rows to the CSV, skips categories that stand there, and goes on with trainings that were stopped.
calibration.md beside the CSV is made from it at the end.
"""
import argparse
import itertools
import time
import tomllib
from pathlib import Path

import pandas as pd
import torch
from csv_rows import append_rows, rows_in
from explore_settings import CATEGORIES, LEVELS, RECOMMENDED, ROOT, auroc, scores, split, validation
from torch import Tensor

from d3ad import D3AD, Config, detector, maps
from d3ad.calibration import FLOOR, at_step, level_statistics
from d3ad.images import every_nth, set_apart, window
from d3ad.study.readme import markdown_table

SHARE = 0.2
MOVED = (0, 8)
COLUMNS = ["category", "train_moved", "seen", "defects", "calibrated_on", "floor", "weight", "i_auroc", "p_auroc",
           "pro", "distance_auroc", "minutes"]
CHOICES = [("", ""), *itertools.product(("trained on", "unseen"), (0.1, 0.5, 1.0, 2.0))]
WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)


def as_it_is(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As held out."""
    return images, masks


def relit(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image (3, H, W) under a light of its own."""
    gain = 0.85 + 0.2 * torch.rand(len(images), 1, 1, 1, generator=generator)
    return ((images + 1) * gain - 1).clamp(-1, 1), masks


def moved(images: Tensor, masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image, with its mask, moved by up to 3 of 128 pixels, its border repeated; other moves than in training."""
    reach, parts = round(3 * images.shape[-1] / 128), []
    for image, mask in zip(images, masks, strict=True):
        top, left = torch.randint(0, 2 * reach + 1, (2,), generator=generator).tolist()
        parts.append(window(torch.cat([image, mask[None]]), top, left, reach))
    both = torch.stack(parts)
    return both[:, :3], both[:, 3]


SEEN = {"as it is": as_it_is, "relit": relit, "moved": moved}


def raw_maps(found: D3AD, images: Tensor) -> dict[str, Tensor]:
    """Both maps (N, H, W) before any normalisation, T-hat and distance (N,)."""
    prediction = found.predict(images)
    return dict(latent=prediction.latent_map, feature=prediction.feature_map, t_hat=prediction.t_hat,
                distance=prediction.distance)


def standardised(raw: dict[str, Tensor], levels: list[dict[str, Tensor]], kind: str, floor: float) -> Tensor:
    """One kind of map in units of what normal images show at each of LEVELS; `floor`: as in `level_statistics`."""
    mean, std = level_statistics([level[kind] for level in levels], floor)
    return (raw[kind] - at_step(LEVELS, mean, raw["t_hat"])) / at_step(LEVELS, std, raw["t_hat"])


def measure(category: str, copies: int, root: Path, work: Path) -> list[dict]:
    """All rows of one category and number of moved copies."""
    started = time.perf_counter()
    config = Config(**tomllib.loads(RECOMMENDED) | dict(name="explored", image_size=128, device="cpu",
                                                        calibration_share=SHARE, train_moved=copies))
    images, held = split(category, root, config.image_size)
    folder, train = work / category, set_apart(images, SHARE)[0]
    codec = detector.fit_codec(train, config, folder / "autoencoder", {})
    found = D3AD(config).fit(images, folder / f"moved-{copies}", codec)
    at = [found.variant(dynamic=False, t_max=int(level), standardise=False) for level in LEVELS]
    normal = {"trained on": every_nth(train, 40), "unseen": every_nth(found.calibration_images, 40)}
    levels = {name: [raw_maps(fixed, few) for fixed in at] for name, few in normal.items()}
    own = {name: raw_maps(found, few) for name, few in normal.items()}
    sigma, rows = config.sigma * config.image_size / 256, []
    for (seen, change), (kind, (bad, masks)) in itertools.product(SEEN.items(), validation(held).items()):
        good = raw_maps(found, change(held, torch.zeros_like(masks), torch.Generator().manual_seed(3))[0])
        bad, masks = change(bad, masks, torch.Generator().manual_seed(4))
        bad = raw_maps(found, bad)
        for (name, floor), weight in itertools.product(CHOICES, WEIGHTS):
            shown = []
            for raw in (good, bad):
                both = []
                for part in ("latent", "feature"):
                    usual = own[name or "unseen"]
                    mine, normal_ones = (raw[part], usual[part]) if not name else (
                        standardised(r, levels[name], part, floor) for r in (raw, usual))
                    both.append(maps.min_max(mine, normal_ones.min(), normal_ones.max()))
                shown.append(maps.anomaly_map(*both, weight, sigma))
            rows.append(dict(category=category, train_moved=copies, seen=seen, defects=kind, calibrated_on=name,
                             floor=floor, weight=weight, distance_auroc=auroc(good["distance"], bad["distance"]),
                             **scores(*shown, masks)))
    minutes = round((time.perf_counter() - started) / 60, 1)
    return [row | dict(minutes=minutes) for row in rows]


def write_tables(source: Path) -> None:
    """calibration.md beside the CSV: means over both kinds of defects, in percent, at lambda 0.5."""
    rows = pd.read_csv(source, dtype={"floor": str, "calibrated_on": str}).fillna({"floor": "", "calibrated_on": ""})
    numbers = ["i_auroc", "p_auroc", "pro"]
    rows = rows[rows["weight"] == 0.5]
    choice = ["train_moved", "calibrated_on", "floor"]
    means = rows.groupby(["category", "seen", *choice], sort=False)[numbers].mean().reset_index()
    over = means.groupby(choice, sort=False)[numbers].mean().reset_index()
    text = ["# Parts that lie elsewhere, and what the calibration rests on", "",
            "Made by `scripts/explore_calibration.py` from `calibration.csv`, on validation data only, as [the other "
            "settings](settings.md):", "held-out normal training images and synthetic defects on them. Good and "
            "defective images are seen as they are, relit (each by a gain", "of its own, 0.85 to 1.05), and moved "
            "(by up to 3 of 128 pixels), as photographs of another day might be. lambda is 0.5 throughout.", "",
            "*Train moved*: copies of each training image, moved by up to 3 of 128 pixels, that the diffusion model "
            "learns from too.", "Chosen: 8.", "",
            "*Calibrated on*: the normal images that give mean and standard deviation of the maps, per pixel; without, "
            "maps are not standardised.", "*Floor*: the share of the mean standard deviation that is added to each "
            f"pixel's. Chosen: unseen images, {FLOOR:g}.", "",
            f"## Mean over {', '.join(rows['category'].unique())}, and over what is seen", "", _table(over), "",
            "## One by one", "", _table(means), ""]
    source.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


def _table(frame: pd.DataFrame) -> str:
    titles = [column.replace("_", " ") for column in frame]
    return markdown_table(titles, ([f"{value:.1f}" if isinstance(value, float) else value for value in row]
                                   for row in frame.itertuples(index=False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "calibration.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for category, copies in itertools.product(args.categories.split(","), MOVED):
        if any((row["category"], row["train_moved"]) == (category, str(copies)) for row in rows_in(args.out)):
            continue
        rows = measure(category, copies, args.data_root, args.work)
        append_rows(args.out, COLUMNS, rows)
        print(category, copies, rows[0]["minutes"], "minutes", flush=True)
    write_tables(args.out)


if __name__ == "__main__":
    main()
