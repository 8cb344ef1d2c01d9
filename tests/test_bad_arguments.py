"""Bad settings, tensors and arguments, each with what is said about it.

What a saved detector's folder may do wrong is in test_hostile_models.py; see also test_config.py.
"""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_inputs import TABLES, table
from tiny_datasets import draw

from d3ad import D3AD, Config, data, training
from d3ad.app import cli
from d3ad.app.part import split_off
from d3ad.conditioning import DynamicConditioning
from d3ad.diffusion import alpha_bar, reconstruct
from d3ad.features import FeatureExtractor
from d3ad.infra.devices import pick_device
from d3ad.infra.thresholds import threshold_for
from d3ad.maps import anomaly_map
from d3ad.metrics import image_auroc, pixel_auroc, pro, pro_200
from d3ad.speed import presets
from d3ad.study.settings import Study

# ---- settings ----

TABLES["test_a_bad_setting_is_named"] = [
    (f"{name} = {value!r}", {name: value}, message) for name, value, message in [
        ("k", 0, "k must lie in"), ("k", -3, "k must lie in"), ("k", 1.5, "k must be of type int"),
        ("k", None, "k must be of type int"),
        ("k", 10 ** 30, "k must lie in"), ("k", [20], "k must be of type int"),
        ("k", {"a": 1}, "k must be of type int"),
        ("omega", -0.1, "omega must lie"), ("omega", float("inf"), "omega must lie"),
        ("omega", "half", "omega must be of type float"),
        ("dynamic", 1, "dynamic must be of type bool"), ("dynamic", "yes", "dynamic must be of type bool"),
        ("spacing", "even", "one of trailing, leading"), ("device", "tpu", "device must be one of"),
        ("normalisation", "none", "normalisation must be one of"),
        ("image_size", 8, "image_size must lie"), ("image_size", 10 ** 6, "image_size must lie"),
        ("image_size", 60, "multiples of 8"),
        ("image_size", 72, "halved often enough"), ("crop_size", 12, "multiples of 8"), ("crop_size", 264, "crop_size"),
        ("t_max", 1001, r"t_max \(1001\) and train_t_max"), ("num_timesteps", 50, "can't exceed num_timesteps"),
        ("train_t_max", 79, "where learning ends"),
        ("beta_start", 0.5, "exceeds beta_end"), ("beta_start", 0.0, "beta_start must lie"),
        ("beta_end", 1.0, "beta_end must lie"),
        ("num_bins", 1, "min_bin"), ("min_bin", 99, "exceeds num_bins"), ("num_steps", 0, "num_steps must lie"),
        ("map_blocks", [0], "map_blocks must lie"), ("map_blocks", "23", "must be a list of int"),
        ("map_blocks", [True], "must be a list of int"),
        ("map_blocks", [], "map_blocks"), ("adapt_blocks", [], "adapt_blocks"), ("dic_block", 4, "dic_block must lie"),
        ("unet_channels", [24, 48], "multiples of 32"), ("unet_channels", [], "multiples of 32"),
        ("unet_heads", 7, "must divide"), ("unet_resampling", "linear", "unet_resampling must be one of"),
        ("unet_attention", [7], "unet_channels lacks"),
        ("threshold_quantile", 0.2, "threshold_quantile must lie"), ("learning_rate", 0, "learning_rate must lie"),
        ("sigma", -1.0, "sigma must lie"), ("batch_size", 0, "batch_size must lie"), ("seed", -1, "seed must lie"),
        ("Omega", 0.5, "unknown setting 'Omega'"),
    ]]


@table
def test_a_bad_setting_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Config.profile("visa", **bad)


TABLES["test_a_bad_setting_of_a_study_is_named"] = [
    (f"{name} = {value!r}", {name: value}, message) for name, value, message in [
        ("source", "web", "source must be one of"), ("split", "by_day", "split must be one of"),
        ("datasets", "visa", "must be a list of str"), ("datasets", [1], "must be a list of str"),
        ("counts", [1, 2, 3, 4], "three numbers"), ("seeds", 0, "seeds must lie"),
        ("Seeds", 1, "unknown setting 'Seeds'")]]


@table
def test_a_bad_setting_of_a_study_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Study.profile("visa", **bad)


# ---- tensors ----

GOOD = torch.zeros(4, 3, 64, 64)
TABLES["test_bad_images_are_refused_by_fit_and_predict"] = [
    ("no batch", torch.zeros(3, 64, 64), r"got a Tensor \(3, 64, 64\)"),
    ("no image", torch.zeros(0, 3, 64, 64), r"got a Tensor \(0, 3"),
    ("grey", torch.zeros(2, 1, 64, 64), r"got a Tensor \(2, 1"),
    ("channels last", torch.zeros(2, 64, 64, 3), r"got a Tensor \(2, 64"),
    ("no pixels", torch.zeros(2, 3, 0, 0), r"got a Tensor \(2, 3, 0, 0\)"),
    ("video", torch.zeros(1, 2, 3, 8, 8), "got a Tensor"),
    ("array of text", np.array(["a"]), "got ndarray"),
    ("array of one channel", np.zeros((2, 8, 8)), r"got a Tensor \(2, 8, 8\)"), ("list", [GOOD[0]], "got list"),
    ("None", None, "got NoneType"), ("NaN", torch.full((1, 3, 8, 8), float("nan")), "must be finite"),
    ("infinite", torch.full((1, 3, 8, 8), float("inf")), "must be finite"),
    ("bytes as numbers", torch.full((1, 3, 8, 8), 255), r"lie in \[-1, 1\]"),
    ("complex", torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "real"),
]


@table
def test_bad_images_are_refused_by_fit_and_predict(fitted, tiny, bad, message):
    for use in (fitted.predict, D3AD(tiny).fit, fitted.set_threshold):
        with pytest.raises(ValueError, match=message):
            use(bad)


def test_k_must_not_exceed_the_training_set(tiny, images):
    with pytest.raises(ValueError,
                       match="10 training images are too few for k = 11 neighbours: give at least 11, or lower k"):
        D3AD(tiny.replace(k=11)).fit(images)
    with pytest.raises(ValueError, match="give at least 11"):
        D3AD(tiny.replace(k=10, include_self=False)).fit(images)


def test_one_image_can_t_standardise(tiny, images, fitted):
    with pytest.raises(ValueError, match="one calibration image has no standard deviation"):
        fitted.variant(calibration_images=1)
    for changes in (dict(calibration_images=1), dict(calibration_share=0.1)):
        with pytest.raises(ValueError, match="standardise needs at least 2 images that calibrate, .* leave 1: give"):
            D3AD(tiny.replace(**changes)).fit(images)
        training.check_training_images(images, tiny.replace(standardise=(), **changes))


def test_networks_never_stay_at_random(tiny, images):
    for changes in (dict(autoencoder_steps=0), dict(pretrain_steps=0)):
        with pytest.raises(ValueError, match=f"takes {next(iter(changes))} above 0: else it stays at random"):
            D3AD(tiny.replace(**changes)).fit(images)


ABAR = alpha_bar()
FEATURES = torch.rand(6, 4)
TABLES["test_bad_arguments_are_refused"] = [
    ("beta of zero", lambda: alpha_bar(0.0, 0.1), "beta"), ("falling beta", lambda: alpha_bar(0.2, 0.1), "beta"),
    ("no step", lambda: alpha_bar(num_timesteps=0), "num_timesteps"),
    ("start beyond T", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 1001), ABAR), "t_hat"),
    ("start below 0", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), -1), ABAR), "t_hat"),
    ("steps of other images", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((3,), 10), ABAR),
     r"a Tensor \(4,\), one for each image"),
    ("no steps", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 10), ABAR, num_steps=0), "num_steps"),
    ("unknown spacing", lambda: reconstruct(lambda z, t: z, GOOD, torch.full((4,), 10), ABAR, spacing="even"),
     "spacing"),
    ("k of zero", lambda: DynamicConditioning(k=0), "k must be at least 1"),
    ("min_bin beyond the bins", lambda: DynamicConditioning(min_bin=11), "min_bin"),
    ("too few features", lambda: DynamicConditioning(k=7).fit(FEATURES), "k = 7 neighbours need"),
    ("features that are NaN", lambda: DynamicConditioning(k=2).fit(FEATURES * float("nan")), "finite"),
    ("features of other shape", lambda: DynamicConditioning(k=2).fit(FEATURES[0]), "k = 2 neighbours need"),
    ("weight beyond 1", lambda: anomaly_map(GOOD[:, 0], GOOD[:, 0], weight=1.5), "weight"),
    ("maps that differ", lambda: anomaly_map(GOOD[:, 0], GOOD[:2, 0]), "shape"),
    ("a device by another name", lambda: pick_device("gpu"), "device must be auto, cuda, mps, cpu; got 'gpu'"),
    ("a device by number", lambda: pick_device("cuda:1"), "device must be auto"),
    ("weights by another name", lambda: FeatureExtractor("resnet18.nobodys", "hub"), "timm has no weights of that"),
    ("no score for a threshold", lambda: threshold_for([]), "at least one good image"),
    ("NaN for a threshold", lambda: threshold_for([0.1, np.nan]), "finite scores"),
    ("rate of zero", lambda: threshold_for([0.1], 0.0), "false_alarm_rate"),
    ("rate beyond a half", lambda: threshold_for([0.1], 0.6), "false_alarm_rate"),
    ("nothing to split", lambda: split_off(GOOD[:1], 0.2, 0), "1 good image"),
    ("unknown normalisation", lambda: data.load("folder", ".", shuffle=True), "unknown option shuffle"),
]


@table
def test_bad_arguments_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


# ---- metrics ----

MAPS, MASKS = np.arange(8.0).reshape(2, 2, 2), np.array([[[0, 0], [0, 1]], [[0, 0], [0, 0]]])
TABLES["test_metrics_refuse_what_has_no_answer"] = [
    ("NaN score", (MAPS * np.nan, MASKS), "8 (image|pixel) scores are NaN or infinite"),
    ("infinite score", (np.where(MAPS == 3, np.inf, MAPS), MASKS), "1 (image|pixel) scores"),
    ("all normal", (MAPS, MASKS * 0), "all are normal"), ("all anomalous", (MAPS, MASKS * 0 + 1), "all are anomalous"),
    ("other shape", (MAPS, MASKS[:1]), "differ in shape"),
    ("nothing", (MAPS[:0], MASKS[:0]), "both normal and anomalous"),
    ("NaN label", (MAPS, MASKS * np.nan), "labels must be"), ("negative label", (MAPS, MASKS - 1), "labels must be"),
    ("torch, NaN score", (torch.full((2, 2, 2), float("nan")), torch.tensor(MASKS)), "8 (image|pixel) scores"),
]


@table
def test_metrics_refuse_what_has_no_answer(bad, message):
    for metric in (image_auroc, pixel_auroc, pro, pro_200):
        with pytest.raises(ValueError, match=message):
            metric(*bad)


@pytest.mark.parametrize("bad, message",
                         [(dict(fpr_limit=0), "fpr_limit"), (dict(fpr_limit=float("nan")), "fpr_limit"),
                          (dict(area=(0.9, 1)), "no region")])
def test_pro_refuses_bad_options(bad, message):
    with pytest.raises(ValueError, match=message):
        pro(MAPS, MASKS, **bad)


def test_pro_needs_maps_of_images():
    for metric in (pro, pro_200):
        with pytest.raises(ValueError, match=r"PRO needs maps \(N, H, W\); got \(2, 2\)"):
            metric(MAPS[0], MASKS[0])


def test_evaluate_needs_both_kinds_of_test_images(monkeypatch, tmp_path, capsys):
    draw(tmp_path / "0.png")
    monkeypatch.setattr(presets, "load", lambda folder, device: SimpleNamespace(config=Config.profile("smoke")))
    assert cli.main(["evaluate", "model", "--dataset", "folder", "--data-root", str(tmp_path)]) == 2
    assert "metrics need both good and anomalous test images" in capsys.readouterr().err
