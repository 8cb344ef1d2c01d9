"""Baselines held against published tables: `python -m d3ad.study.parity --data-root DIR --weights DIR`.

It runs methods on MVTec AD whose numbers for each category have been published, with a ResNet-18 or with networks of
their own, and writes results/parity/baselines.csv.  Each cell and the state of its training are kept in the cache, so
a stopped run goes on; what the file has of other runs stays.  RD4AD, RD++ and SimpleNet are published for each category
with a WideResNet-50 only.
"""
import argparse
import hashlib
import json
import shutil
import statistics
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

from d3ad import data, metrics
from d3ad.baselines import Resources, make
from d3ad.config import Config
from d3ad.features import FeatureExtractor
from d3ad.infra.files import ROOT, read_json, write_whole
from d3ad.study.settings import cache_folder

CATEGORIES = ("bottle", "pill", "screw", "transistor")
VERSION = 1  # raised when a method computes something else
ANOMALIB = "https://github.com/open-edge-platform/anomalib, anomalib/models/{}/README.md, {}"
# Method: (image size, source, metric: percent on CATEGORIES); one seed each.  Image sizes are those of the config.yaml
# beside the README; anomalib stops early, on test images, what it trains.
PUBLISHED = {
    "PaDiM": (256, ANOMALIB.format("padim", "ResNet-18, commit b826abc, seed 42"),
              {"i_auroc": (99.4, 86.3, 75.9, 92.0), "p_auroc": (98.3, 95.7, 97.8, 96.8)}),
    "PatchCore": (224, ANOMALIB.format("patchcore", "ResNet-18, commit 5845f36, seed 42, coreset of 10 %"),
                  {"i_auroc": (100.0, 91.6, 94.3, 99.6), "p_auroc": (98.1, 97.4, 99.1, 97.4)}),
    "FastFlow": (256, ANOMALIB.format("fastflow", "ResNet-18, commit 8adfc6c, seed 0, stopped early"),
                 {"i_auroc": (100.0, 91.6, 52.1, 93.8), "p_auroc": (98.3, 97.2, 92.6, 96.4)}),
    "CFA": (224, ANOMALIB.format("cfa", "ResNet-18, commit 875cb85, seed 0, stopped early"),
            {"i_auroc": (99.1, 88.7, 62.5, 89.5), "p_auroc": (98.6, 98.1, 97.3, 96.4)}),
    "DRAEM": (256, "https://arxiv.org/abs/2108.07610, Tables 1 and 2, networks of its own",
              {"i_auroc": (99.2, 98.9, 93.9, 93.1), "p_auroc": (99.1, 97.6, 97.6, 90.9)}),
    # worse than chance on all four; DRAEM's Table 1 has 79.4, 67.1, 100.0 and 80.8, and doesn't say how they came about
    "GANomaly": (256, ANOMALIB.format("ganomaly", "networks of its own, commit 4191ddc, seed 42, stopped early"),
                 {"i_auroc": (25.1, 47.2, 23.1, 44.0)}),
}
# Why a cell is more than 4 points from the published one
REASONS: dict[tuple[str, str, str], str] = {}


def measure(method: str, category: str, seed: int, data_root: str, weights: str,
            folder: Path | None = None) -> dict[str, float]:
    """Both AUROCs of a method on a category, in percent, at the image size of the published table.

    folder: a training's state is kept there, and a stopped one resumes from it.
    """
    size = PUBLISHED[method][0]
    dataset = data.load("mvtec", data_root, category)
    train, test = (_resized(dataset.images(split, 256), size) for split in ("train", "test"))
    # the maps are smoothed over 4 pixels, whatever the size; the UNet's levels only have to fit it
    config = Config.profile("mvtec", image_size=size, sigma=4 * 256 / size, seed=seed, backbone="resnet18",
                            backbone_weights=weights, unet_channels=(32, 64, 64), unet_attention=(2,))
    resources = Resources(config, FeatureExtractor("resnet18", weights).eval(), folder=folder)
    found = make(method, resources).learn(train).predict(test)
    return dict(i_auroc=100 * metrics.image_auroc(found.score, dataset.labels("test")),
                p_auroc=100 * metrics.pixel_auroc(found.anomaly_map, dataset.masks("test", size)))


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def table(folder: Path) -> pd.DataFrame:
    """A row per method, metric and category: published and measured percent (the mean over the seeds in `folder`)."""
    rows = []
    for method, (size, source, values) in PUBLISHED.items():
        for metric, published in values.items():
            for category, reported in zip(CATEGORIES, published):
                cells = [read_json(file)[metric]
                         for file in sorted(folder.glob(f"{method}-{category}-*-{VERSION}.json"))]
                measured = round(statistics.mean(cells), 2) if cells else None
                rows.append(dict(
                    method=method, metric=metric, category=category, published=reported, source=source, pixels=size,
                    measured=measured, seeds=len(cells),
                    difference=round(measured - reported, 2) if cells else None,
                    reason=REASONS.get((method, metric, category), ""), profile="parity"))
    return pd.DataFrame(rows).astype({"measured": float, "difference": float})


def with_earlier(frame: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The rows of `table`, and for what wasn't measured here those that the file has, of this or another machine."""
    if not file.exists():
        return frame
    keys, found = ["method", "metric", "category", "published", "pixels"], ["measured", "seeds", "difference"]
    earlier = pd.read_csv(file).set_index(keys)[found].reindex(pd.MultiIndex.from_frame(frame[keys]))
    known = (frame["seeds"] == 0) & earlier["seeds"].gt(0).to_numpy()
    frame.loc[known, found] = earlier.to_numpy()[known]
    return frame.astype({"seeds": int})


def mean_difference(frame: pd.DataFrame) -> pd.Series:
    """Mean absolute difference over the categories, by method and metric; of complete ones only."""
    whole = frame.groupby(["method", "metric"])["difference"].filter(lambda column: column.notna().all())
    return frame.loc[whole.index].groupby(["method", "metric"], sort=False)["difference"].agg(lambda d: d.abs().mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m d3ad.study.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True, help="the folder that holds MVTec AD's categories")
    parser.add_argument("--weights", required=True, help="ImageNet's ResNet-18: model.safetensors, or its folder")
    parser.add_argument("--out", type=Path, help="results/ and the cache go there; by default into this repository")
    parser.add_argument("--methods", nargs="+", default=["PaDiM", "PatchCore"], choices=PUBLISHED)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES, choices=CATEGORIES)
    parser.add_argument("--seeds", type=int, default=1, help="how many are averaged")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the same numbers on any machine of a kind
    inputs = "|".join(str(Path(place).resolve()) for place in (options.data_root, options.weights))
    cells = cache_folder(options.out, "parity") / hashlib.sha256(inputs.encode()).hexdigest()[:8]
    file = (options.out or ROOT) / "results" / "parity" / "baselines.csv"
    for seed in range(options.seeds):
        for method in options.methods:
            for category in options.categories:
                cell = cells / f"{method}-{category}-{seed}-{VERSION}.json"
                if not cell.exists():
                    training = cell.with_suffix("")
                    numbers = measure(method, category, seed, options.data_root, options.weights, training)
                    write_whole(cell, json.dumps(numbers))
                    shutil.rmtree(training, ignore_errors=True)  # its state is of no more use
                    print(method, category, seed, numbers, flush=True)
                found = with_earlier(table(cells), file)
                write_whole(file, found.to_csv(index=False))
    print(mean_difference(found).round(2).to_string())


if __name__ == "__main__":
    main()
