"""What each choice of settings changes, on validation data only: held-out normal training images and synthetic defects
on them.

    python scripts/explore_settings.py --data-root DIR --work DIR [--jobs screw:plain8,bottle:near8@256]
                                       [--out docs/settings.csv]

DIR holds the datasets (MVTec AD, magnetic tiles) under their usual names; no test image is ever read.  A fifth of the
training images (of the tiles: whole tiles) is held out.  Defects are of two kinds, so that nothing is tuned to one
drawing: "patch" (`from_scratch.corrupt`) and "drawn" (validation_data.py: scratches, spots, missing parts, bent parts).
Four measurements:

ideal     the autoencoder alone: phi of the defective image against phi of its decoded flawless original, what a perfect
          diffusion model would give.  Takes no UNet, so many autoencoders can be compared.
detector  all of D3AD, with many settings of the maps read off one trained detector.
distance  Algorithm 2's distance alone, per block: does it tell defective from good held-out images, and what do a
          darker, a dimmer or an unevenly lit good image do to it.  Trains nothing.
confirm   the setting chosen (`RECOMMENDED`), through `D3AD.fit` and `predict` as a user calls them;
          "confirm:screw:near8" takes up the training of that job, whose autoencoder and UNet it shares.

Appends rows to the CSV, skips jobs that stand there, and goes on with trainings that were stopped.  docs/settings.md is
made from the CSV at the end.
"""
import argparse
import itertools
import time
import tomllib
from pathlib import Path

import pandas as pd
import torch
from csv_rows import add_missing
from torch import Tensor
from validation_data import auroc, scores, split, validation

from d3ad import D3AD, Config, conditioning, detector, diffusion, maps
from d3ad.calibration import at_step, by_the_others, level_statistics
from d3ad.data.apart import every_nth
from d3ad.features import FeatureExtractor
from d3ad.study.readme.cells import markdown_table

ROOT = Path(__file__).resolve().parent.parent
BASE = dict(name="explored", image_size=128, autoencoder="small", autoencoder_weights="none", autoencoder_steps=1000,
            crop_size=64,
            latent_channels=8, unet_channels=[48, 96, 128], unet_layers=1, unet_attention=[2], unet_groups=16,
            unet_resampling="conv",
            train_steps=1000,
            train_t_max=320, batch_size=8, learning_rate=1e-3, learning_schedule="cosine", ema_decay=0.98,
            backbone="tf_efficientnet_lite0", backbone_weights="pip", adapt_epochs=0, dic_block=3, num_steps=2,
            calibration_images=1, calibration_levels=1, normalisation="train", device="cpu")
NEAR = dict(autoencoder_perceptual=0.1)
SETTINGS = {
    "plain8": {}, "near8": NEAR, "nearer8": dict(autoencoder_perceptual=0.5), "near4": dict(latent_channels=4, **NEAR),
    "near16": dict(latent_channels=16, **NEAR), "smooth4": dict(autoencoder="smooth", latent_channels=4),
    "smooth8-near": dict(autoencoder="smooth", **NEAR),
    "nearer16": dict(latent_channels=16, autoencoder_perceptual=0.5),
    "near8-long": dict(autoencoder_steps=3000, **NEAR),
    "nearer16-long": dict(latent_channels=16, autoencoder_perceptual=0.5, autoencoder_steps=3000),
    "near8-dic2": dict(dic_block=2, **NEAR), "near8-normalised": dict(dic_normalise=True, **NEAR),
}
COLUMNS = ["job", "measurement", "category", "setting", "image_size", "adaptation", "step", "blocks", "weight",
           "standardise", "defects",
           "i_auroc", "p_auroc", "pro", "distance_auroc", "normal_l1", "normal_distance", "minutes", "light", "seen",
           "light_auroc", "defect_in_light_auroc"]
# what the tables change one by one
REFERENCE = dict(adaptation="0", step="dynamic", blocks="2+3", weight=0.5, standardise=True)
BLOCKS = ((2,), (3,), (2, 3), (1, 2, 3))
WEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)
LEVELS = torch.tensor([20, 50, 80])


def distances(a: dict[int, Tensor], b: dict[int, Tensor], size: int) -> Tensor:
    """Cosine distance of each block, (3, B, H, W)."""
    return torch.stack([maps.upsample(maps.cosine_distance(a[j], b[j]), size) for j in (1, 2, 3)])


@torch.no_grad()
def ideal(config: Config, codec, train: Tensor, held: Tensor) -> list[dict]:
    """Rows of the measurement "ideal"."""
    phi = FeatureExtractor(config.backbone, config.backbone_weights).eval()
    size, sigma = config.image_size, config.sigma_pixels

    def decoded(images: Tensor) -> Tensor:
        return torch.cat([codec.decode(codec.encode(batch)[0]) for batch in images.split(16)])

    def apart(images: Tensor, originals: Tensor) -> Tensor:
        return torch.cat([distances(phi(a), phi(b), size) for a, b in zip(images.split(16), originals.split(16))], 1)

    few = every_nth(train, 60)
    flawless, usual = decoded(held), apart(few, decoded(few))
    good = apart(held, flawless)
    rows, bad = [], {kind: (apart(images, flawless), masks) for kind, (images, masks) in validation(held).items()}
    for blocks, standardise, (kind, (found, masks)) in itertools.product(BLOCKS, (False, True), bad.items()):
        index = [j - 1 for j in blocks]
        mean, std = level_statistics([usual[index].sum(0)]) if standardise else (0, 1)
        shown = [maps.smooth((part[index].sum(0) - mean) / std, sigma) for part in (good, found)]
        rows.append(dict(measurement="ideal", blocks=blocks, standardise=standardise, defects=kind,
                         normal_l1=round(float((held - flawless).abs().mean()), 4),
                         normal_distance=round(float(good[index].mean()), 4), **scores(*shown, masks)))
    return rows


@torch.no_grad()
def look(found: D3AD, images: Tensor, step: int | None = None) -> dict[str, Tensor]:
    """Latent map (N, H, W), each block's map (3, N, H, W), T-hat and distance; step: of all images, None for Algorithm
    2's."""
    parts = []
    for batch in images.split(16):
        seen = found._look(batch)
        t_hat = seen["t_hat"] if step is None else torch.full_like(seen["t_hat"], step)
        z_hat = diffusion.reconstruct(found.networks.eps, seen["z0"], t_hat, found.alpha_bar, found.config.num_steps,
                                      found.config.guidance)
        parts.append((maps.latent_map(seen["z0"], z_hat, batch.shape[-2:]), t_hat, seen["distance"],
                      distances(seen["features"], found.networks.features(found.networks.decode(z_hat)),
                                batch.shape[-1])))
    latent, t_hat, distance, blocks = zip(*parts)
    return dict(latent=torch.cat(latent), t_hat=torch.cat(t_hat), distance=torch.cat(distance),
                blocks=torch.cat(blocks, 1))


def fused(raw: dict, levels: list[dict], own: Tensor, steps: Tensor, blocks: tuple[int, ...], weight: float,
          standardise: bool, sigma: float) -> Tensor:
    """Eq. 9 as `D3AD._fuse` does it, ranges of training images.

    levels: what training images give at each of `steps`; own: which of these is each training image's own."""
    index = [j - 1 for j in blocks]
    both = []
    for pick in (lambda r: r["latent"], lambda r: r["blocks"][index].sum(0)):
        mean, std = level_statistics([pick(r) for r in levels]) if standardise else (torch.zeros(len(steps), 1, 1),
                                                                                     torch.ones(len(steps), 1, 1))
        usual = (by_the_others([pick(r) for r in levels], own) if standardise else
                 torch.stack([pick(r) for r in levels])[own, torch.arange(len(own))])
        mine = (pick(raw) - at_step(steps, mean, raw["t_hat"])) / at_step(steps, std, raw["t_hat"])
        both.append(maps.min_max(mine, usual.min(), usual.max()))
    return maps.anomaly_map(*both, weight, sigma)


def detect(config: Config, codec, train: Tensor, held: Tensor, folder: Path, adaptations: list[str]) -> list[dict]:
    """Rows of the measurement "detector".  adaptations: epochs and the batch normalisation's statistics, as "1
    batch"."""
    backbone, rows = detector.fit_backbone(train, config, None, {}), []
    fitted = D3AD(config).fit(train, folder, codec, backbone)
    kinds, few, sigma = validation(held), every_nth(train, 40), config.sigma_pixels
    for adaptation in adaptations:
        epochs, _, statistics = adaptation.partition(" ")
        found = fitted if epochs == "0" else fitted.readapted(train, backbone, adapt_epochs=int(epochs),
                                                              adapt_batch_norm=statistics)
        for step in (None, 80) if epochs == "0" else (None,):
            steps = LEVELS if step is None else torch.tensor([step])
            levels = [look(found, few, int(level)) for level in steps]
            t_hat = torch.cat([found._look(batch)["t_hat"] for batch in few.split(16)])
            own = (steps - t_hat.unsqueeze(1)).abs().argmin(1)
            good = look(found, held, step)
            bad = {kind: look(found, images, step) for kind, (images, _) in kinds.items()}
            choices = itertools.product(BLOCKS if step is None else ((2, 3),), WEIGHTS, (False, True), bad)
            for blocks, weight, standardise, kind in choices:
                if weight == 1 and blocks != (2, 3):  # the latent map alone knows no blocks
                    continue
                shown = [fused(raw, levels, own, steps, blocks, weight, standardise, sigma)
                         for raw in (good, bad[kind])]
                rows.append(dict(measurement="detector", adaptation=adaptation, step=step or "dynamic", blocks=blocks,
                                 weight=weight, standardise=standardise,
                                 defects=kind, distance_auroc=auroc(good["distance"], bad[kind]["distance"]),
                                 **scores(*shown, kinds[kind][1])))
    return rows


def confirm(config: Config, codec, train: Tensor, held: Tensor, folder: Path) -> list[dict]:
    """Rows of the measurement "confirm"."""
    found, kinds, rows = D3AD(config).fit(train, folder, codec), validation(held), []
    images, good = torch.cat([held, *(bad for bad, _ in kinds.values())]), len(held)
    prediction = found.predict(images)
    for weight, standardise in itertools.product((0.0, 0.3, 0.5, 0.7, 0.85), (False, True)):
        which = ("latent", "feature") if standardise else ()
        shown = found.variant(weight=weight, standardise=which).renormalised(prediction, "train").anomaly_map
        for i, (kind, (_, masks)) in enumerate(kinds.items()):
            start = good * (i + 1)
            rows.append(dict(measurement="confirm", adaptation="0", step="dynamic", blocks=config.map_blocks,
                             weight=weight, standardise=standardise, defects=kind,
                             distance_auroc=auroc(prediction.distance[:good], prediction.distance[start:start + good]),
                             **scores(shown[:good], shown[start:start + good], masks)))
    return rows


LIGHTS = {"darker": lambda x: 0.92 * (x + 1) - 1, "dimmer": lambda x: (x - 0.1).clamp_min(-1),
          "uneven": lambda x: (x + 1) * torch.linspace(0.85, 1.0, x.shape[-1]) - 1}
SEEN = {"as it is": (lambda x: x, lambda f: f), "one brightness": (conditioning.one_brightness, lambda f: f),
        "centred": (lambda x: x, lambda f: f - f.mean((2, 3), keepdim=True))}


@torch.no_grad()
def separability(config: Config, train: Tensor, held: Tensor) -> list[dict]:
    """Rows of the measurement "distance"."""
    phi, rows = FeatureExtractor(config.backbone, config.backbone_weights).eval(), []
    images = {kind: bad for kind, (bad, _) in validation(held).items()}
    images |= {name: change(held) for name, change in LIGHTS.items()}
    for seen, (before, after) in SEEN.items():
        def vectors(x: Tensor) -> dict[int, Tensor]:
            parts = [phi(before(batch)) for batch in x.split(32)]
            return {j: torch.cat([conditioning.pool_features(after(part[j])) for part in parts]) for j in (1, 2, 3)}

        reference, good, others = vectors(train), vectors(held), {name: vectors(x) for name, x in images.items()}
        for j in (1, 2, 3):
            far = {name: conditioning.knn_distances(found[j], reference[j], config.k).mean(1)
                   for name, found in {"good": good, **others}.items()}
            for light, kind in itertools.product(LIGHTS, ("patch", "drawn")):
                rows.append(dict(measurement="distance", blocks=(j,), defects=kind, light=light, seen=seen,
                                 distance_auroc=auroc(far["good"], far[kind]),
                                 light_auroc=auroc(far["good"], far[light]),
                                 defect_in_light_auroc=auroc(far[light], far[kind])))
    return rows


def run(job: str, measurement: str, root: Path, work: Path, adaptations: list[str]) -> list[dict]:
    """Rows of one job, "category:setting" or "category:setting@pixels"."""
    started = time.perf_counter()
    category, _, setting = job.split("@")[0].partition(":")
    size = int(job.partition("@")[2] or 128)
    chosen = tomllib.loads(RECOMMENDED) if measurement == "confirm" else {**BASE, **SETTINGS[setting or "plain8"]}
    config = Config(**{**chosen, "image_size": size, "device": "cpu"})
    train, held = split(category, root, size)
    folder = work / job.replace(":", "-").replace("@", "-")
    if measurement == "distance":
        return _named(separability(config, train, held), job, measurement, category, "", size, started)
    codec = detector.fit_codec(train, config, folder / "autoencoder", {})
    if measurement == "confirm":
        return _named(confirm(config, codec, train, held, folder), job, measurement, category, setting, size, started)
    found = ideal(config, codec, train, held) if measurement == "ideal" else detect(config, codec, train, held, folder,
                                                                                    adaptations)
    return _named(found, job, measurement, category, setting, size, started)


def _named(rows: list[dict], job: str, measurement: str, category: str, setting: str, size: int,
           started: float) -> list[dict]:
    minutes = round((time.perf_counter() - started) / 60, 2)
    return [dict(job=f"{measurement} {job}", category=category, setting=setting, image_size=size, minutes=minutes,
                 **{k: "+".join(map(str, v)) if k == "blocks" else v for k, v in row.items()}) for row in rows]


RECOMMENDED = """autoencoder = "small"
autoencoder_weights = "none"
autoencoder_steps = 1000
autoencoder_perceptual = 0.1       # 40 % nearer to the input in these features; no gain on screw, see below
crop_size = 64
latent_channels = 8
unet_channels = [48, 96, 128]
unet_layers = 1
unet_attention = [2]
unet_groups = 16
unet_resampling = "conv"
train_steps = 1000                 # on this page; more of them help: training.md
train_t_max = 320
train_moved = 8                    # no part lies where the last one lay: calibration.md
batch_size = 8
learning_rate = 1.0e-3
learning_schedule = "cosine"
ema_decay = 0.98
backbone = "tf_efficientnet_lite0"
backbone_weights = "pip"
adapt_epochs = 0                   # measured on screw and bottle only, see "adaptation" below
dic_block = 3                      # tells defects better than block 2 in every category
dic_normalise = true               # another light is no defect
map_blocks = [2, 3]                # the paper's; with block 1 a little better on screws, worse on tiles
weight = 0.7                       # lambda: calibration.md; with another distance of features 0.5: feature-distance.md
num_steps = 2
calibration_share = 0.2            # not trained on: calibration.md
calibration_images = 40
calibration_levels = 3
standardise = ["feature"]          # calibration.md; both maps, with lambda 0.5, as far as this page goes
normalisation = "train"
"""


def write_tables(source: Path) -> None:
    """docs/settings.md from the CSV: what each choice changed, mean over both kinds of defects, in percent."""
    rows = pd.read_csv(source, dtype={"blocks": str, "step": str, "adaptation": str})
    numbers = ["i_auroc", "p_auroc", "pro", "distance_auroc", "normal_l1", "normal_distance", "minutes", "light_auroc",
               "defect_in_light_auroc"]
    keys = [column for column in COLUMNS if column not in (*numbers, "defects", "job")]
    mean = rows.groupby(keys, dropna=False, sort=False)[numbers].mean().reset_index()
    text = ["# What each setting changes", "", "[Back to the README](../README.md)", "",
            "Made by `scripts/explore_settings.py` from `settings.csv`, on validation data only: held-out normal "
            "training images and synthetic",
            "defects on them (mean of two kinds, percent). No test image was read; nothing here is a result on a "
            "benchmark.", "",
            "## The setting chosen", "", "At 128 pixels; one for all categories.", "", "```toml", RECOMMENDED.rstrip(),
            "```", "",
            "Open questions. With the perceptual term, the feature map alone (lambda 0) separates screw's defects",
            "far better, and the latent map alone less well ([weight](#weight)). So at lambda 0.5 screw is slightly",
            "*better* without the term, by too little to be sure of with so few good images; bottle and tiles were",
            "not measured without it. Standardising helps bottle and tiles and hurts screw. Brightness does not",
            "explain the distances on screw: darker copies of its held-out images lie no farther from their",
            "neighbours. So nothing here shows that `dic_normalise` would help on its test images; it does help on",
            "bottle and, in part, on pill. One seed throughout.", "",
            "In the tables, *plain8* is without the perceptual term and *near8* with it; *near8-dic2* is near8 with",
            "the distance taken in block 2. *Adaptation*: epochs of Eq. 10, with the statistics of each batch",
            "(*batch*) or the running ones (*running*). *Darker*, *dimmer*, *uneven*: the same good images, darkened",
            "by a factor, dimmed by an offset, or lit unevenly. *weight* is lambda, *tiles* the magnetic tiles;",
            "*distance_auroc* is the AUROC of Algorithm 2's distance alone, *normal_l1* the mean absolute error of a",
            "decoded normal image.", "",
            "## The autoencoder alone", "",
            "What the feature map would tell if the diffusion model were perfect: phi of a defective image against phi "
            "of its decoded flawless",
            "original. *Normal distance*: of a held-out normal image to its decoded self in these features; what "
            "blinds the feature map.", ""]
    ideal = mean[(mean.measurement == "ideal") & mean.blocks.isin(["2+3", "1+2+3"])]
    text += [_table(ideal, ["category", "setting", "image_size", "blocks", "standardise", "i_auroc", "p_auroc", "pro",
                            "normal_l1", "normal_distance"]), "",
             "## Algorithm 2's distance", "",
             "AUROC of the mean distance to the 20 nearest training images, per block: defective against good images; "
             "good images under another",
             "light against good ones (50 is best).  *Seen*: images as they are, brought to one brightness "
             "(`dic_normalise`), or each channel of",
             "the features without its mean.", "", _distance_table(mean), "",
             "## The setting chosen, confirmed", "",
             "Through `D3AD.fit` and `predict`, with all fields as above but for lambda and `standardise`; measured "
             "before `train_moved` and", "`calibration_share`, which have [a page of their own](calibration.md).", "",
             _table(_confirmed(mean),
                    ["weight", "standardise", "i_auroc", "p_auroc", "pro", "distance_auroc", "categories"]), "",
             _table(mean[(mean.measurement == "confirm") & mean.weight.isin([0.3, 0.5, 0.7])],
                    ["category", "image_size", "weight", "standardise", "i_auroc", "p_auroc", "pro", "distance_auroc",
                     "minutes"]), "",
             "## The whole detector", "", "Mean over the categories measured, all choices of the maps, the best twelve "
                                          "by the sum of the three metrics:", "",
             _table(_best(mean), [*REFERENCE, "i_auroc", "p_auroc", "pro", "categories"]), "",
             f"From the reference ({', '.join(f'{k} {v}' for k, v in REFERENCE.items())}), one choice changed at a "
             "time.", ""]
    found = mean[mean.measurement == "detector"]
    for key in REFERENCE:
        others = (found[k].astype(str) == str(v) for k, v in REFERENCE.items() if k != key)
        chosen = found[pd.concat(list(others), axis=1).all(axis=1)]
        text += [f"### {key}", "",
                 _table(chosen, ["category", "setting", "image_size", key, "i_auroc", "p_auroc", "pro",
                                 "distance_auroc"]), ""]
    source.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


def _best(mean: pd.DataFrame) -> pd.DataFrame:
    """The best settings of the maps, of those measured in every category, with the setting and size that most
    categories share."""
    found = mean[(mean.measurement == "detector") & (mean.setting == "near8") & (mean.image_size == 128)]
    over = found.groupby(list(REFERENCE), sort=False)[["i_auroc", "p_auroc", "pro"]].mean()
    over["categories"] = found.groupby(list(REFERENCE), sort=False)["category"].nunique()
    over = over[over.categories == over.categories.max()].reset_index()
    return over.loc[over[["i_auroc", "p_auroc", "pro"]].sum(axis=1).sort_values(ascending=False,
                                                                                kind="stable").index[:12]]


def _confirmed(mean: pd.DataFrame) -> pd.DataFrame:
    found = mean[(mean.measurement == "confirm") & (mean.image_size == 128)]
    over = found.groupby(["weight", "standardise"], sort=False)
    return over[["i_auroc", "p_auroc", "pro",
                 "distance_auroc"]].mean().assign(categories=over["category"].nunique()).reset_index()


def _distance_table(mean: pd.DataFrame) -> str:
    found = mean[(mean.measurement == "distance") & mean.blocks.isin(["2", "3"])]
    wide = found.pivot_table(index=["category", "blocks", "seen", "distance_auroc"], columns="light",
                             values="light_auroc", sort=False).reset_index()
    wide = wide.rename(columns={"distance_auroc": "defective against good",
                                **{name: f"{name} good against good" for name in LIGHTS}})
    return _table(wide, list(wide.columns))


def _table(frame: pd.DataFrame, columns: list[str]) -> str:
    columns = list(dict.fromkeys(columns))

    def cell(column: str, value) -> str:
        if pd.isna(value):
            return ""
        if not isinstance(value, float):
            return str(value)
        return f"{value:.3f}" if column.startswith("normal") else f"{value:g}" if column == "weight" else f"{value:.1f}"

    return markdown_table(columns, ([cell(column, row[column]) for column in columns] for _, row in frame.iterrows()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where trainings are kept")
    parser.add_argument("--jobs", default="", help="category:setting[@pixels], with commas; 'ideal:', 'distance:' or "
                                                   "'confirm:' in front for these")
    parser.add_argument("--adaptations", default="0,1 batch,1 running")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "settings.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)

    def named(job: str) -> str:
        """As the column `job` has it."""
        measurement = next((m for m in ("ideal", "distance", "confirm") if job.startswith(f"{m}:")), "detector")
        return f"{measurement} {job.removeprefix(f'{measurement}:')}"

    def measured(name: str) -> list[dict]:
        measurement, job = name.split(" ", 1)
        return run(job, measurement, args.data_root, args.work, args.adaptations.split(","))

    add_missing(args.out, COLUMNS, ("job",), ((named(job),) for job in filter(None, args.jobs.split(","))), measured)
    write_tables(args.out)


if __name__ == "__main__":
    main()
