"""Whether other maps would tell defects better: one change of how they are made at a time, on the same networks.

    python scripts/explore_maps.py --data-root DIR --work DIR [--categories pill,screw] [--change "none"] [--out FILE]

On validation data only, as in explore_calibration.py, whose defects and lights these are.  The detectors are those of
explore_training.py, and the same --work shares their trainings; --change names one.

Appends rows to the CSV, skips pairs that stand there, and goes on with trainings that were stopped.  maps-tried.md
beside the CSV is made from it at the end.
"""
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from explore_calibration import NUMBERS, by_place, in_each_way
from explore_settings import LEVELS
from explore_training import fitted, run_on_trained, trained_in_words
from torch import Tensor
from validation_data import auroc, scores

from d3ad import D3AD, maps
from d3ad.calibration import calibrate, fuse
from d3ad.config import Config
from d3ad.data.apart import spread_over
from d3ad.infra.batches import in_batches
from d3ad.infra.files import write_whole
from d3ad.infra.spread import Spread
from d3ad.study.readme.cells import in_one_cell, markdown_table

CHOSEN = Config.profile("parts")
COLUMNS = ["category", "change", "place", "seen", "defects", "maps", *NUMBERS, "minutes"]


@dataclass(frozen=True)
class Maps:
    """How both maps are made; the defaults are those of the profile `parts`.

    blocks: of phi.  of_decoded: the reconstruction is compared with the decoded latent, which has lost what every
    autoencoder loses, in place of the image.  window: places whose differences are averaged first, a side.
    by_place: the mean of usual differences is one for each place.  sigma: of the Gaussian, in pixels.  highest: pixels
    whose mean is the image's score.
    """

    blocks: tuple[int, ...] = CHOSEN.map_blocks
    of_decoded: bool = False
    window: int = 1
    by_place: bool = False
    sigma: float = CHOSEN.sigma_pixels
    highest: int = 1


WAYS = {
    "as chosen": Maps(),
    "block 2 alone": Maps(blocks=(2,)),
    "block 3 alone": Maps(blocks=(3,)),
    "blocks 1 and 2": Maps(blocks=(1, 2)),
    "blocks 1 to 3": Maps(blocks=(1, 2, 3)),
    "usual differences place by place": Maps(by_place=True),
    "differences averaged over 3 x 3 places": Maps(window=3),
    "against the decoded latent": Maps(of_decoded=True),
    "a Gaussian twice as wide": Maps(sigma=2 * CHOSEN.sigma_pixels),
    "score: mean of the 100 highest pixels": Maps(highest=100),
}


def compared(found: D3AD, images: Tensor) -> dict[str, Tensor]:
    """What maps are made of, for images (N, 3, H, W): the latent map and T-hat, and differences (N, C, h, w) of phi's
    blocks between the reconstruction and the image ("image1") or its decoded latent ("decoded1").
    """
    said = found.predict(images)

    def look(pair: Tensor) -> dict[str, Tensor]:
        image, rebuilt = pair.unbind(1)
        networks, hat = found.networks, found.networks.features(rebuilt)
        whole = {"image": networks.features(image),
                 "decoded": networks.features(networks.decode(networks.encode(image)[0]))}
        return {f"{name}{j}": features[j] - hat[j] for name, features in whole.items() for j in (1, 2, 3)}

    pairs = torch.stack([images, said.reconstruction], 1)
    return in_batches(look, pairs, found.config.predict_batch, found.device) | dict(latent=said.latent_map,
                                                                                    t_hat=said.t_hat)


def differences(of: dict[str, Tensor], way: Maps, block: int) -> Tensor:
    """The differences of one block as a way has them, before the usual ones are taken away."""
    found = of[f"{'decoded' if way.of_decoded else 'image'}{block}"]
    return F.avg_pool2d(found, way.window, 1, way.window // 2, count_include_pad=False) if way.window > 1 else found


def maker(way: Maps, normal: dict[str, Tensor], levels: list[dict[str, Tensor]]
          ) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function from what `compared` gives to the maps (N, H, W), calibrated on normal images.

    normal: of the images that calibrate, at their own steps; levels: at each of LEVELS.
    """
    usual = {}
    for block in way.blocks:
        seen, spread = [differences(level, way, block) for level in levels], Spread()
        place = torch.cat(seen).mean(0) if way.by_place else torch.zeros(())
        for each in seen:
            spread.add(each - place)
        usual[block] = (place, *spread.whitening())

    def feature_map(of: dict[str, Tensor]) -> Tensor:
        size, parts = of["latent"].shape[-2:], []
        for block, (place, *measure) in usual.items():
            distance = maps.mahalanobis_distance(differences(of, way, block), place, *measure)
            parts.append(maps.upsample(distance, size))
        return sum(parts)

    made = [feature_map(level) for level in levels]

    def maps_at(t_hat: Tensor) -> tuple[Tensor, Tensor]:
        if torch.equal(t_hat, normal["t_hat"]):
            return normal["latent"], feature_map(normal)
        level = LEVELS.tolist().index(int(t_hat[0]))
        return levels[level]["latent"], made[level]

    def fused(*given) -> tuple[Tensor, Tensor]:  # latent, feature, t_hat, calibration
        return fuse(*given, CHOSEN.weight, way.sigma, "train")

    calibration = calibrate(maps_at, normal["t_hat"], LEVELS, CHOSEN.standardise, lambda *given: fused(*given)[1],
                            CHOSEN.threshold_quantile)
    return lambda of: fused(of["latent"], feature_map(of), of["t_hat"], calibration)[0]


def measure(category: str, change: str, root: Path, work: Path) -> list[dict]:
    """All rows of one category and training."""
    started = time.perf_counter()
    found, images, held = fitted(category, change, root, work)
    calibrating = spread_over(found.calibration_images, CHOSEN.calibration_images)
    normal = compared(found, calibrating)
    levels = [compared(found.variant(dynamic=False, t_max=int(step)), calibrating) for step in LEVELS]
    makers = {name: maker(way, normal, levels) for name, way in WAYS.items()}
    rows = []
    for seen, good, changed in in_each_way(held, by_place(held, images)):
        good = compared(found, good)
        for (place, kind), (bad, masks) in changed.items():
            bad = compared(found, bad)
            for name, make in makers.items():
                both = make(good), make(bad)
                highest = [each.flatten(1).topk(WAYS[name].highest).values.mean(1) for each in both]
                rows.append(dict(category=category, change=change, place=place, seen=seen, defects=kind, maps=name,
                                 **scores(*both, masks) | dict(i_auroc=auroc(*highest))))
    minutes = round((time.perf_counter() - started) / 60, 1)
    return [row | dict(minutes=minutes) for row in rows]


PAGE = """# Other maps that were tried

[Back to the README](../README.md) · [how features are compared](feature-distance.md) · [training](training.md)

D3AD compares an image with its reconstruction twice: in the autoencoder's latents (the latent map), and in the features
of a pretrained network, phi, after some of its blocks (the feature map). Lambda times the first and 1 - lambda times
the second, smoothed by a Gaussian, is the anomaly map; its highest pixel is the image's score (Section 4.2, Eq. 9).
Would maps made in another way find more defects?

Made by `scripts/explore_maps.py` from `maps-tried.csv`, on validation data only: a fifth of the normal training images,
held out, and synthetic defects on them, as on [the page on calibration](calibration.md). One seed. The detectors are
those of [the page on training](training.md), with these of its changes:
{trained}.

Each line changes one thing of how the profile `parts` makes its maps, on the same networks. *As chosen*: blocks 2 and 3
of phi, [the Mahalanobis distance](feature-distance.md), lambda 0.5, the feature map in units of each pixel's standard
deviation over good images. The networks were trained on another processor than those of the page on that distance, so
its numbers for the same setting differ by some tenths ([why](processors.md)).

Cells: I-AUROC (of images) / P-AUROC (of pixels) / PRO (of regions), percent, mean over both kinds of defects, both
kinds of places (anywhere, and where good parts vary), and images as they are, relit (15 % darker to 5 % brighter), and
moved by up to 3 of 128 pixels.

{table}

- *Usual differences place by place*: the mean difference of good images, which is taken away first, is that of each
  position, and not one for all positions.
- *Differences averaged over 3 x 3 places*: those of neighbouring positions are averaged before the distance is taken.
- *Against the decoded latent*: the reconstruction is compared with the image's own latent, decoded, and not with the
  image. Then what the autoencoder loses of every image doesn't count, and neither do small defects that it loses.

Better in I-AUROC than the maps as chosen in every category: {always}. The most that any line gains on average, before
rounding: {gains}. In single categories some gain more, and lose on others.

So `parts` keeps its maps, and so do `mvtec-cpu`, `mvtec-taef2`, `mtd` and `elpv`, which make theirs in the same way.
Not measured here: several changes at once, and networks that learned from [copies in another
light](training.md#copies-in-another-light), as those of `mvtec-cpu`.
"""


def write_tables(source: Path) -> None:
    """maps-tried.md beside the CSV.  Raises ValueError where it holds two trainings of a category."""
    rows = pd.read_csv(source)
    trained = trained_in_words(rows, source)
    each = rows.groupby(["maps", "category"], sort=False)[NUMBERS].mean()
    names = list(rows["category"].unique())
    average = each.groupby("maps", sort=False).mean()
    lines = [[name, *(in_one_cell(each.loc[(name, category)]) for category in names), in_one_cell(average.loc[name])]
             for name in average.index]
    gain = (average - average.loc["as chosen"]).drop(index="as chosen")
    best = {title: (gain[number].max(), gain[number].idxmax())
            for number, title in zip(NUMBERS, ("I-AUROC", "P-AUROC", "PRO"))}
    gains = "; ".join(f"{title} {points:.1f} points (*{name}*)" if points >= 0.05 else f"{title} nothing"
                      for title, (points, name) in best.items())
    detected = each["i_auroc"].unstack("maps")
    always = [f"*{name}*" for name in gain.index if (detected[name] > detected["as chosen"]).all()]
    write_whole(source.with_suffix(".md"), PAGE.format(
        trained=trained, gains=gains, always=", ".join(always) or "none",
        table=markdown_table(["maps", *names, "average"], lines)))


if __name__ == "__main__":
    run_on_trained(__doc__.split("\n\n")[0], "maps-tried.csv", COLUMNS, measure, write_tables)
