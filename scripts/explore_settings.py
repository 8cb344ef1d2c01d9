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
confirm   the setting chosen (`RECOMMENDED`), through `D3AD.fit` and `predict` as a user calls them.

Appends rows to the CSV, skips jobs that stand there, and goes on with trainings that were stopped.  docs/settings.md is
made from the CSV at the end.
"""
import argparse
import itertools
import time
import tomllib
from pathlib import Path

import torch
from csv_rows import add_missing
from settings_page import COLUMNS, RECOMMENDED, write_tables
from torch import Tensor
from validation_data import auroc, scores, split, validation

from d3ad import D3AD, Config, conditioning, diffusion, from_scratch, maps
from d3ad.calibration import at_step, by_the_others, level_statistics
from d3ad.data.apart import spread_over
from d3ad.features import FeatureExtractor
from d3ad.infra.files import ROOT

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

    few = spread_over(train, 60)
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
    backbone, rows = from_scratch.fit_backbone(train, config, None, {}), []
    fitted = D3AD(config).fit(train, folder, codec, backbone)
    kinds, few, sigma = validation(held), spread_over(train, 40), config.sigma_pixels
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
    folder = work / ("confirm-" * (measurement == "confirm") + job.replace(":", "-").replace("@", "-"))
    if measurement == "distance":
        return _named(separability(config, train, held), job, measurement, category, "", size, started)
    codec = from_scratch.fit_codec(train, config, folder / "autoencoder", {})
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
