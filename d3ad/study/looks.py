"""Looks at single trained runs, for the notebooks: what one image goes through, and numbers that no variant's metrics
have.  Functions of a run that return rows are cached by `on_each`.
"""
import copy
import json
from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from d3ad import diffusion, maps, metrics, training
from d3ad.calibration import Calibration, fuse
from d3ad.conditioning import DynamicConditioning, assign_bins, knn_distances, pool_features
from d3ad.config import Config
from d3ad.data.moving import image_seed
from d3ad.features import FeatureExtractor, adaptation_loss
from d3ad.from_scratch import fit_backbone
from d3ad.infra.batches import in_batches
from d3ad.infra.files import read_json, write_whole
from d3ad.study import ablations, selection
from d3ad.study.jobs import on_trained
from d3ad.study.outcome import evaluate
from d3ad.study.shared import shared_backbone
from d3ad.study.validation import with_defects
from d3ad.study.workspace import Run, Workspace

GOOD_IMAGES = 16  # good test images that `change_of_good_images` and `adaptation_loss_of` look at


def on_each(runs: list[Run], title: str, look: Callable[[Run], list[dict]], name: str) -> pd.DataFrame:
    """The rows of look(run) for all runs, computed in parallel; each run's are cached as <name>.json."""
    on_trained(title, _kept, [(run, look, name) for run in runs if not (run.folder / f"{name}.json").exists()])
    return pd.DataFrame([row for run in runs for row in _kept(run, look, name)])


def _kept(run: Run, look: Callable[[Run], list[dict]], name: str) -> list[dict]:
    file = run.folder / f"{name}.json"
    if not file.exists():
        write_whole(file, json.dumps(look(run)))
    return read_json(file)


def steps_on_validation(workspace: Workspace) -> pd.DataFrame:
    """The fixed steps of Table 4 on validation data, rows as in `ablations.summary`; on the runs of the profile's own
    seed that spreads are taken over.

    Validation data: the normal images that the calibration rests on, and copies of them with synthetic defects
    (`validation.with_defects`).  No test image is read.
    """
    runs = [run for run in workspace.seed_runs() if run.config.seed == workspace.config.seed]
    return on_each(runs, "fixed steps on validation data", validate_steps, "steps-on-validation")


def validate_steps(run: Run) -> list[dict]:
    """A row of `steps_on_validation` for each fixed step."""
    good = run.detector.calibration_images
    images, masks, labels = with_defects(good, torch.Generator().manual_seed(run.config.seed))
    return [ablations.row(run, name, evaluate(run.variant(**changes).predict(images), labels, masks))
            for name, changes in ablations.table4(run.config).items() if not changes.get("dynamic", True)]


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
    return on_each(workspace.runs(), "separability of DIC", dic_separability, "dic-separability")


def dic_separability(run: Run) -> list[dict]:
    """How well the distance of Algorithm 2 alone tells anomalous images, with each stage of the features.

    Rows of I-AUROC.  `block` is the feature extractor's; `pooling` "mean" is the authors' 16 x 16 average,
    "maximum" one maximum per channel.
    """
    pooled = {"mean": pool_features, "maximum": lambda y: y.amax((2, 3))}

    def vectors(images: Tensor, backbone: FeatureExtractor) -> dict[tuple[int, str], Tensor]:
        def look(batch: Tensor) -> dict[tuple[int, str], Tensor]:
            blocks = backbone(batch)
            return {(block, pooling): pool(blocks[block]) for block in (2, 3) for pooling, pool in pooled.items()}
        return in_batches(look, images, run.config.predict_batch, run.detector.device)

    rows, train_images = [], run.training_images
    for name, backbone in backbones(run).items():
        train, test = vectors(train_images, backbone), vectors(run.images, backbone)
        for block, pooling in train:
            distance = knn_distances(test[block, pooling], train[block, pooling], run.config.k).mean(1)
            rows.append(dict(dataset=run.workspace.title(run.name), category=run.category, features=name, block=block,
                             pooling=pooling, measured_i_auroc=100 * metrics.image_auroc(distance, run.labels)))
    return rows


def bins_of(run: Run, include_self: bool | None = None) -> tuple[Tensor, Tensor]:
    """Bins of Algorithm 2, long, 0..|B|: of the training images (N,), and of the test images (M,); Figures 5 and 16.

    include_self: False leaves a training image out of its own neighbours.  Otherwise it finds itself at distance 0, as
    no test image can, and training images seem to lie lower for that alone.  None: as the detector does.
    """
    dic = run.conditioning
    if include_self is not None:
        dic = DynamicConditioning(**dic.settings() | dict(include_self=include_self)).fit(dic.reference)
    return assign_bins(dic.train_distances, dic.edges), assign_bins(run.distances(), dic.edges)


def high_levels(config: Config) -> list[int]:
    """Figure 15's levels, as far as the network was trained: T_max and two, three, four times as much."""
    return [config.t_max * i for i in (1, 2, 3, 4) if config.t_max * i <= config.train_t_max]


def change_of_good_images(run: Run) -> list[dict]:
    """Mean |x_hat - x_0| in % of the grey scale, a row per good test image and level, the two highest."""
    good = run.images[run.labels == 0][:GOOD_IMAGES]
    levels, rows = high_levels(run.config)[-2:], []
    for method, omega in (("scaled", 0.0), ("noised", 1.0)):
        for level, pictures in zip(levels, perturbed(run, good, levels, omega)):
            change = 50 * (pictures["reconstruction"] - good).abs().mean((1, 2, 3))
            rows += [dict(category=run.category, seed=run.config.seed, method=method, level=level, image=i,
                          change=float(value)) for i, value in enumerate(change)]
    return rows


def changes_of_good_images(workspace: Workspace, runs: list[Run] | None = None) -> pd.DataFrame:
    """`change_of_good_images` of every run of `seed_runs`, or of these."""
    runs = workspace.seed_runs() if runs is None else runs
    return on_each(runs, "high levels", change_of_good_images, "change-of-each-good-image")


def adaptation_loss_of(run: Run) -> list[dict]:
    """Eq. 10 of good test images and their reconstructions, before and after the adaptation; one row.

    Taken with the batch statistics of the training ("as in training") and with the running ones ("as in use").
    """
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
    return [row]


def adaptation_losses(workspace: Workspace) -> pd.DataFrame:
    """`adaptation_loss_of` every run of the profile."""
    return on_each(workspace.runs(), "losses of Eq. 10", adaptation_loss_of, "adaptation-losses")
