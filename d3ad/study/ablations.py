"""The comparisons that the notebooks draw: which settings they compare, and what was measured, as tables in percent.

A variant is a dict of settings that differ from the profile's; `summary` measures variants on runs.  The columns are
`measured_*`, and `spread_*` for standard deviations over seeds.
"""
import copy
import json

import pandas as pd
import torch
from torch import Tensor

from d3ad import diffusion, maps, metrics, training
from d3ad.calibration import Calibration, fuse
from d3ad.conditioning import DynamicConditioning, assign_bins, knn_distances, pool_features
from d3ad.config import Config
from d3ad.data.moving import image_seed
from d3ad.features import FeatureExtractor, adaptation_loss
from d3ad.from_scratch import corrupt, fit_backbone
from d3ad.infra.batches import in_batches
from d3ad.infra.files import write_whole
from d3ad.study import selection
from d3ad.study.jobs import on_trained, prepare
from d3ad.study.outcome import evaluate
from d3ad.study.shared import shared_backbone
from d3ad.study.workspace import Run, Workspace

TITLES = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
METRICS = tuple(TITLES)
AS_REPORTED = (*METRICS, "pro_200")  # with the PRO that a published one is compared with
SEPARABILITY = "dic-separability.json"
BENCHMARK = {"D3AD": {}, "D3AD, fully noised": dict(omega=1.0)}
NAMED_STEPS = ("25% (20)", "100% (80)")  # those of Table 4 that the paper's text compares with by name
OMEGAS = tuple(round(0.1 * i, 1) for i in range(11))  # Eq. 11, Figure 14


def table4(config: Config) -> dict[str, dict]:
    """The settings that Table 4 compares, under the paper's names: fixed quarters of T_max, and the dynamic step."""
    quarters = {f"{25 * i}% ({20 * i})": dict(dynamic=False, t_max=round(config.t_max * i / 4)) for i in (1, 2, 3, 4)}
    return {**quarters, "DIC": {}}


def table5(config: Config) -> dict[str, dict]:
    """The settings that Table 5 compares: DS, the input is only scaled (downscaling); DA, the features are adapted.

    A profile that leaves the adaptation off is measured with one epoch of it.
    """
    adapted = dict(adapt_epochs=config.adapt_epochs or 1)
    return {"no DS, no DA": dict(omega=1.0, adapt_epochs=0), "DS": dict(adapt_epochs=0),
            "DA": dict(omega=1.0) | adapted, "DS + DA": adapted}


def seeded(config: Config) -> dict[str, dict]:
    """What is measured with several seeds, for the ledger of claims."""
    return {**BENCHMARK, **table5(config), **{name: table4(config)[name] for name in NAMED_STEPS}}


def summary(workspace: Workspace, variants: dict[str, dict], runs: list[Run] | None = None,
            columns: tuple[str, ...] = METRICS) -> pd.DataFrame:
    """One row per (dataset, category, split, seed, method), metrics in percent; computes what is missing, in parallel.

    columns: which of the numbers.
    """
    runs = workspace.runs() if runs is None else runs
    prepare(runs, list(variants.values()))
    rows = []
    for run in runs:
        rows += [row(run, method, run.numbers(**changes), columns) for method, changes in variants.items()]
    return pd.DataFrame(rows)


def row(run: Run, method: str, numbers: dict, columns: tuple[str, ...] = METRICS) -> dict:
    """One row of `summary`: whose numbers these are, and the numbers in percent."""
    percent = {f"measured_{name}": float("nan") if numbers[name] is None else 100 * numbers[name] for name in columns}
    return dict(dataset=run.workspace.title(run.name), category=run.category, split=run.split, seed=run.config.seed,
                method=method, **percent)


def with_averages(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `summary` and, behind each dataset and split, its means over categories and seeds as "Average".

    `spread_*` is the standard deviation of the categories' mean over seeds, empty where there is one seed.  Where there
    are several datasets, "all datasets" averages over all their categories, or "all synthetic" where they are.
    """
    values = [column for column in frame if column.startswith("measured_")]

    def average(rows: pd.DataFrame, **names) -> pd.DataFrame:
        per_seed = rows.groupby(["method", "seed"], sort=False)[values].mean()
        mean, spread = (getattr(per_seed.groupby("method", sort=False), how)() for how in ("mean", "std"))
        spread.columns = [column.replace("measured_", "spread_") for column in values]
        return mean.join(spread).reset_index().assign(category="Average", **names)

    parts = []
    for (dataset, split), rows in frame.groupby(["dataset", "split"], sort=False):
        parts += [rows, average(rows, dataset=dataset, split=split)]
    if frame["dataset"].nunique() > 1:
        synthetic = frame["dataset"].str.endswith("-like").all()
        parts.append(average(frame, dataset="all synthetic" if synthetic else "all datasets",
                             split=frame["split"].iloc[0]))
    return pd.concat(parts, ignore_index=True).astype({"seed": "Int64"})


def benchmark_runs(workspace: Workspace) -> list[Run]:
    """The runs of the large comparisons: every seed and split of the magnetic tiles, else the profile's seed."""
    if "mtd" not in workspace.study.datasets:
        return workspace.runs()
    seeds = range(workspace.config.seed, workspace.config.seed + workspace.study.seeds)
    # the split that counts comes first
    return [run for split in ("by_tile", "random") for seed in seeds for run in workspace.runs(seed=seed, split=split)]


def against_noise(workspace: Workspace) -> pd.DataFrame:
    """D3AD against itself with noise, on `benchmark_runs`."""
    return with_averages(summary(workspace, BENCHMARK, benchmark_runs(workspace)))


def seeds(workspace: Workspace) -> pd.DataFrame:
    """The variants of `seeded` on `ledger_runs`, with PRO by size of defect and the AUROC of Algorithm 2's distance."""
    columns = (*METRICS, "pro_small", "pro_medium", "pro_large", "distance_auroc")
    return summary(workspace, seeded(workspace.config), workspace.ledger_runs(), columns=columns)


VALIDATION = "steps-on-validation.json"


def steps_on_validation(workspace: Workspace) -> pd.DataFrame:
    """The fixed steps of Table 4 on validation data, rows as in `summary`; on the runs of the profile's own seed that
    spreads are taken over.

    Validation data: the normal images that the calibration rests on, and copies of them with synthetic defects
    (`from_scratch.corrupt`).  No test image is read.
    """
    runs = [run for run in workspace.seed_runs() if run.config.seed == workspace.config.seed]
    return _each(runs, "fixed steps on validation data", validate_steps, VALIDATION)


def validate_steps(run: Run) -> list[dict]:
    """A row of `steps_on_validation` for each fixed step; cached."""
    file = run.folder / VALIDATION
    if not file.exists():
        good = run.detector.calibration_images
        bad, where = corrupt(good, torch.Generator().manual_seed(run.config.seed))
        images, masks = torch.cat([good, bad]), torch.cat([torch.zeros_like(where), where]) > 0.5
        labels = (torch.arange(len(images)) >= len(good)).long()
        rows = [row(run, name, evaluate(run.variant(**changes).predict(images), labels, masks))
                for name, changes in table4(run.config).items() if not changes.get("dynamic", True)]
        write_whole(file, json.dumps(rows))
    return json.loads(file.read_text(encoding="utf-8"))


def better_fixed(frame: pd.DataFrame) -> dict[str, str]:
    """Metric to the fixed step with the best mean, of two equal ones the lower.  frame: of `steps_on_validation`."""
    means = method_means(frame)
    return {metric: means[f"measured_{metric}"].idxmax() for metric in METRICS}


def two_samplers(workspace: Workspace) -> pd.DataFrame:
    """Table 4 with one sampler for all steps, and with the authors' second one for fixed steps (`second_sampler`).

    On the runs of the profile's own seed that spreads are taken over; means over categories: a row per step, columns
    measured_* of the one sampler, second_* of the other.  The features are adapted anew with the sampler.
    """
    runs = [run for run in workspace.seed_runs() if run.config.seed == workspace.config.seed]
    one = table4(workspace.config)
    two = {name: changes | dict(second_sampler=True) for name, changes in one.items()}
    means = [method_means(summary(workspace, variants, runs)) for variants in (one, two)]
    return means[0].join(means[1].rename(columns=lambda name: name.replace("measured_", "second_"))).reset_index()


def omega_sweep(workspace: Workspace) -> pd.DataFrame:
    """Figure 14: every omega of Eq. 11 on every run, and every second one with further seeds; with a column `omega`.

    Where the profile adapts its features, they are adapted anew for each omega (`Run.variant`).
    """
    further = [run for run in workspace.seed_runs() if run.config.seed != workspace.config.seed]
    variants = {str(omega): dict(omega=omega) for omega in OMEGAS}
    every_second = {str(omega): variants[str(omega)] for omega in OMEGAS[::2]}
    frame = pd.concat([summary(workspace, variants), summary(workspace, every_second, further)], ignore_index=True)
    return frame.assign(omega=frame["method"].astype(float), method="D3AD")


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """The metrics that rows of `summary` have numbers in, with what they are called; without masks I-AUROC only."""
    return {metric: title for metric, title in TITLES.items() if frame[f"measured_{metric}"].notna().any()}


def method_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over all categories and seeds, a row per method."""
    single = frame[frame["category"] != "Average"]
    return single.groupby("method", sort=False)[[column for column in frame if column.startswith("measured_")]].mean()


def leads(means: pd.DataFrame, own: str) -> pd.DataFrame:
    """How far one method is ahead of the best other one: a row per metric, with `own`, `best other`, `other` and
    `lead`.

    means: a row per method, a column per metric in percent.  own: a row's name.
    A metric that nothing was measured in, as where a dataset has no masks, gets no row.
    Raises KeyError where `means` has no such row.
    """
    means = means.dropna(axis=1, how="all")
    others = means.drop(index=own)
    return pd.DataFrame({"own": means.loc[own], "best other": others.idxmax(), "other": others.max(),
                         "lead": means.loc[own] - others.max()})


def component_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """What each component of Table 5 adds, in points: a row per step from one combination to the next, a column per
    metric.

    frame: of `summary` over `table5`; its means over categories and seeds are compared.
    """
    means = method_means(frame).rename(columns=lambda name: name.removeprefix("measured_"))
    steps = {"DS alone": ("DS", "no DS, no DA"), "DA alone": ("DA", "no DS, no DA"),
             "DS on top of DA": ("DS + DA", "DA"), "DA on top of DS": ("DS + DA", "DS")}
    return pd.DataFrame({name: means.loc[after] - means.loc[before] for name, (after, before) in steps.items()}).T


def perturbed(run: Run, images: Tensor, levels: list[int], omega: float) -> list[dict[str, Tensor]]:
    """Images reconstructed from several fixed levels: a dict of reconstruction, latent_map, feature_map and disturbed
    per level (Figure 15).

    images: (N, 3, H, W).  `disturbed` is Eq. 11 on the image itself, for the eye; the method disturbs latents.
    """
    trained = run.detector
    generators = [torch.Generator().manual_seed(image_seed(image, run.config.seed)) for image in images]
    noise = diffusion.image_noise(images, generators)
    rows = []
    with torch.no_grad():
        z0, _ = trained.codec.encode(images.to(trained.device))
        features = trained.backbone(images.to(trained.device))
        for level in levels:
            generators = [torch.Generator().manual_seed(image_seed(image, run.config.seed)) for image in images]
            z_hat = diffusion.reconstruct(training.eps_model(trained.unet), z0, level, trained.alpha_bar,
                                          run.config.num_steps,
                                          run.config.guidance, run.config.spacing, omega, generators)
            x_hat = trained.codec.decode(z_hat)
            # always cosine: a calibration's differences are of the run's own omega and steps
            blocks = [[seen[j] for j in run.config.map_blocks] for seen in (features, trained.backbone(x_hat))]
            rows.append(dict(disturbed=diffusion.perturb(images, level, trained.alpha_bar, omega, noise),
                             reconstruction=x_hat.cpu(),
                             latent_map=maps.latent_map(z0, z_hat, run.config.image_size).cpu(),
                             feature_map=maps.feature_map(*blocks, run.config.image_size).cpu()))
    return rows


def side_by_side(run: Run, i: int, levels: list[int]) -> dict:
    """Test image i scaled and noised (`perturbed`), for Figure 15: image, mask, scaled and noised, a dict per level.

    Each level has an anomaly_map (H, W), Eq. 9 with both maps brought to 0..1 over all levels and both sides, and a
    circle: where the reconstruction fails (`selection.failure`), or None.
    """
    image, mask, config = run.images[i:i + 1], run.masks[i], run.config
    sides = {side: perturbed(run, image, levels, omega) for side, omega in (("scaled", 0.0), ("noised", 1.0))}
    found = [level for side in sides.values() for level in side]
    latent, feature = (torch.cat([level[name] for level in found]) for name in ("latent_map", "feature_map"))
    sigma = config.sigma_pixels
    fused, _ = fuse(latent, feature, torch.zeros(len(found), dtype=torch.long), Calibration.neutral(), config.weight,
                    sigma, "test")
    change = maps.smooth(torch.cat([(level["reconstruction"] - image).abs().mean(1) for level in found]), sigma)
    outside = change[0][~mask]  # of the scaled input at T_max; nothing where the whole image is marked
    limit = 2 * float(outside.max()) if len(outside) else float("inf")
    for level, anomaly_map, changed in zip(found, fused, change):
        level |= dict(anomaly_map=anomaly_map, circle=selection.failure(changed, mask, limit))
    return dict(image=image[0], mask=mask, **sides)


def backbones(run: Run) -> dict[str, FeatureExtractor]:
    """The feature extractor as it started, as the shared training left it, and as Eq. 10 adapted it."""
    config, shared = run.config, shared_backbone(run, {})
    extractors = {"pretrained": shared}
    if config.backbone_weights == "none":
        random = fit_backbone(None, config.replace(pretrain_steps=0), None, {})
        extractors = {"random weights": random, "trained on normal images": shared}
    return extractors | ({"adapted (Eq. 10)": run.detector.backbone} if config.adapt_epochs else {})


def separability(workspace: Workspace) -> pd.DataFrame:
    """`dic_separability` of every run of the profile."""
    return _each(workspace.runs(), "separability of DIC", dic_separability, SEPARABILITY)


def dic_separability(run: Run) -> list[dict]:
    """How well the distance of Algorithm 2 alone tells anomalous images, with each stage of the features.

    Rows of I-AUROC, cached.  `block` is the feature extractor's; `pooling` "mean" is the authors' 16 x 16 average,
    "maximum" one maximum per channel.
    """
    pooled = {"mean": pool_features, "maximum": lambda y: y.amax((2, 3))}

    def vectors(images: Tensor, backbone: FeatureExtractor) -> dict[tuple[int, str], Tensor]:
        def look(batch: Tensor) -> dict[tuple[int, str], Tensor]:
            blocks = backbone(batch)
            return {(block, pooling): pool(blocks[block]) for block in (2, 3) for pooling, pool in pooled.items()}
        return in_batches(look, images, run.config.predict_batch, run.detector.device)

    file = run.folder / SEPARABILITY
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    rows, train_images = [], run.training_images
    for name, backbone in backbones(run).items():
        train, test = vectors(train_images, backbone), vectors(run.images, backbone)
        for block, pooling in train:
            distance = knn_distances(test[block, pooling], train[block, pooling], run.config.k).mean(1)
            rows.append(dict(dataset=run.workspace.title(run.name), category=run.category, features=name, block=block,
                             pooling=pooling, measured_i_auroc=100 * metrics.image_auroc(distance, run.labels)))
    write_whole(file, json.dumps(rows))
    return rows


def bins_of(run: Run, include_self: bool | None = None) -> tuple[Tensor, Tensor]:
    """Bins of Algorithm 2, long, 0..|B|: of the training images (N,), and of the test images (M,); Figures 5 and 16.

    include_self: False leaves a training image out of its own neighbours.  Otherwise it finds itself at distance 0, as
    no test image can, and training images seem to lie lower for that alone.  None: as the detector does.
    """
    dic = run.detector.conditioning
    if include_self is not None:
        dic = DynamicConditioning(**dic.settings() | dict(include_self=include_self)).fit(dic.reference)
    return assign_bins(dic.train_distances, dic.edges), assign_bins(run.distances(), dic.edges)


def high_levels(config: Config) -> list[int]:
    """Figure 15's levels, as far as the network was trained: T_max and two, three, four times as much."""
    return [config.t_max * i for i in (1, 2, 3, 4) if config.t_max * i <= config.train_t_max]


GOOD_IMAGES = 16  # good test images that the next two functions look at
CHANGE = "change-of-each-good-image.json"


def change_of_good_images(run: Run) -> list[dict]:
    """Mean |x_hat - x_0| in % of the grey scale, a row per good test image and level, the two highest; cached."""
    file = run.folder / CHANGE
    if not file.exists():
        good = run.images[run.labels == 0][:GOOD_IMAGES]
        levels, rows = high_levels(run.config)[-2:], []
        for method, omega in (("scaled", 0.0), ("noised", 1.0)):
            for level, pictures in zip(levels, perturbed(run, good, levels, omega)):
                change = 50 * (pictures["reconstruction"] - good).abs().mean((1, 2, 3))
                rows += [dict(category=run.category, seed=run.config.seed, method=method, level=level, image=i,
                              change=float(value)) for i, value in enumerate(change)]
        write_whole(file, json.dumps(rows))
    return json.loads(file.read_text(encoding="utf-8"))


def changes_of_good_images(workspace: Workspace, runs: list[Run] | None = None) -> pd.DataFrame:
    """`change_of_good_images` of every run of `seed_runs`, or of these."""
    return _each(workspace.seed_runs() if runs is None else runs, "high levels", change_of_good_images, CHANGE)


def _each(runs: list[Run], title: str, function, file: str) -> pd.DataFrame:
    """The rows of function(run), which caches them as `file`, for all runs; missing ones are computed in parallel."""
    on_trained(title, function, [(run,) for run in runs if not (run.folder / file).exists()])
    return pd.DataFrame([row for run in runs for row in function(run)])


LOSSES = "adaptation-losses.json"


def adaptation_loss_of(run: Run) -> list[dict]:
    """Eq. 10 of good test images and their reconstructions, before and after the adaptation; cached.

    Taken with the batch statistics of the training ("as in training") and with the running ones ("as in use").
    """
    file = run.folder / LOSSES
    if not file.exists():
        config, trained = run.config, run.variant(adapt_epochs=run.config.adapt_epochs or 1)
        good = run.images[run.labels == 0][:GOOD_IMAGES]
        pair = [x.to(trained.device) for x in (good, trained.predict(good).reconstruction)]
        row = dict(category=str(run))
        for how in ("as in training", "as in use"):
            for when, backbone in (("before", shared_backbone(run, {})), ("after", trained.backbone)):
                backbone = copy.deepcopy(backbone).train(how == "as in training")
                with torch.no_grad():
                    blocks = [[features[j] for j in config.adapt_blocks] for features in map(backbone, pair)]
                row[f"{how}, {when}"] = float(adaptation_loss(*blocks, config.adapt_loss))
        write_whole(file, json.dumps([row]))
    return json.loads(file.read_text(encoding="utf-8"))


def adaptation_losses(workspace: Workspace) -> pd.DataFrame:
    """`adaptation_loss_of` every run of the profile."""
    return _each(workspace.runs(), "losses of Eq. 10", adaptation_loss_of, LOSSES)
