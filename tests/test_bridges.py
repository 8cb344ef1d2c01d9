"""Other libraries' ways: DataLoaders, scikit-learn's outlier detectors, anomalib's folders, batches and Engine,
torch.export.
"""
import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch.utils.data import DataLoader, TensorDataset

from d3ad import D3AD, data, metrics
from d3ad.app import export, verdict
from d3ad.app.cli import main
from d3ad.app.estimator import D3ADEstimator
from d3ad.autoencoders import LatentCodec
from d3ad.data import synthetic
from d3ad.infra.files import load_tensors


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Drawn buttons in anomalib's Folder layout: good, defect, and masks directly in mask."""
    root = tmp_path_factory.mktemp("parts")
    drawn = synthetic.write(tmp_path_factory.mktemp("drawn"), "mvtec", "button", 12, 4, 6, size=64) / "button"
    for name, source in (("good", "train/good"), ("defect", "test/chip"), ("mask", "ground_truth/chip")):
        (drawn / source).rename(root / name)
    return root


@pytest.fixture(scope="module")
def settings(tiny):
    """The tiny configuration as changes to the smoke profile."""
    from d3ad import Config
    smoke = Config.profile("smoke").to_dict()
    return {name: value for name, value in tiny.to_dict().items() if value != smoke[name]}


def test_importing_d3ad_takes_none_of_these_libraries_along():
    heavy = ["anomalib", "papermill", "ray", "sklearn", "lightning", "accelerate"]
    code = f"import sys, d3ad, d3ad.app.cli; from d3ad import D3AD; print([n for n in {heavy} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip().splitlines()[-1]
    assert set(json.loads(found.replace("'", '"'))) <= {"sklearn", "accelerate"}  # which diffusers and the AUROC bring


# ---- PyTorch ----

def test_batches_of_any_usual_form_are_taken(fitted, images):
    expected = fitted.predict(images).score
    tensors, pairs = DataLoader(images, batch_size=4), DataLoader(TensorDataset(images, torch.zeros(10)), batch_size=3)
    dicts = [{"image": part, "label": 0} for part in images.split(7)]
    for batches in (tensors, pairs, dicts, (part for part in images.split(2))):
        assert torch.allclose(fitted.predict(batches).score, expected, atol=1e-5)


def test_a_detector_trained_from_a_loader_is_the_same(tiny, images, fitted):
    assert torch.equal(D3AD(tiny).fit(DataLoader(images, batch_size=4)).predict(images).score,
                       fitted.predict(images).score)


@pytest.mark.parametrize("bad", [[{"picture": torch.zeros(1, 3, 64, 64)}], [torch.zeros(3, 64, 64)], [()], iter([]),
                                 [torch.zeros(1, 3, 64, 64), "a"]])
def test_other_batches_are_refused(fitted, bad):
    with pytest.raises(ValueError, match="DataLoader"):
        fitted.predict(bad)


# ---- scikit-learn ----

def test_signs_are_those_of_scikit_learns_outlier_detectors(settings, images):
    estimator = D3ADEstimator("smoke", settings)
    with pytest.raises(NotFittedError):
        estimator.score_samples(images)
    assert estimator.fit(images) is estimator
    scores, decision = estimator.score_samples(images), estimator.decision_function(images)
    assert scores == pytest.approx(-estimator.detector_.predict(images).score.numpy()) and scores.shape == (10,)
    assert decision == pytest.approx(scores - estimator.offset_)
    assert (estimator.predict(images) == np.where(estimator.detector_.predict(images).is_anomalous, -1, 1)).all()


def test_it_can_be_cloned_piped_and_cross_validated(settings, images):
    flat, labels = images.flatten(1).numpy(), np.array([0] * 8 + [1] * 2)
    estimator = D3ADEstimator("smoke", settings, held_out=0.0)
    copy = clone(estimator)
    assert copy is not estimator and copy.get_params() == estimator.get_params()
    pipe = make_pipeline(FunctionTransformer(np.clip, kw_args=dict(a_min=-1, a_max=1)), estimator)
    assert pipe.fit(flat[:8]).score_samples(flat).shape == (10,) and set(pipe.predict(flat)) <= {-1, 1}
    folds = [(np.arange(8), np.arange(4, 10))]
    found = cross_val_score(estimator, flat, 1 - labels, cv=folds, scoring="roc_auc")
    assert found == pytest.approx([metrics.image_auroc(-pipe.score_samples(flat[4:]), labels[4:])])


# ---- torch.export ----

def test_exported_networks_say_the_same(fitted, images, tmp_path, capsys):
    fitted.save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "decoder.pt2", "encoder.pt2", "export.json", "features.pt2", "unet.pt2", "verdict.py", "verdict.safetensors"]
    latents = fitted.codec.encode(images[:3])[0]
    inputs = dict(encoder=(images[:3],), decoder=(latents,), unet=(latents, torch.tensor([0, 19, 79])),
                  features=(images[:1],))
    for name, (network, _) in export.networks(fitted).items():
        program = torch.export.load(tmp_path / "out" / f"{name}.pt2").module()
        with torch.no_grad():
            ours, theirs = network(*inputs[name]), program(*inputs[name])
        for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (ours, theirs)), strict=True):
            assert a.shape == b.shape and torch.allclose(a, b, atol=1e-4), name
    settings = json.loads((tmp_path / "out" / "export.json").read_text())
    assert settings["image_size"] == 64 and settings["threshold"] == float(fitted.calibration.threshold)


def test_a_large_autoencoder_is_exported_for_any_batch_though_it_takes_one_image_at_a_time():
    from diffusers import AutoencoderKL  # after torchvision was made importable
    model = AutoencoderKL(down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                          block_out_channels=(16, 16), norm_num_groups=4)
    codec, batch = LatentCodec(model.eval(), "kl"), torch.export.Dim("batch", min=1, max=63)
    decoder = torch.export.export(export._Decoder(codec), (torch.rand(2, 4, 8, 8),), dynamic_shapes=({0: batch},))
    latents = torch.rand(5, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(decoder.module()(latents), codec.decode(latents))


def test_a_fresh_detector_without_standardised_maps_is_exported(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "networks", lambda detector: {})
    plain = fitted.variant(standardise=())
    export.export(plain, tmp_path / "out")  # its calibration's tensors share memory
    tensors, _ = load_tensors(tmp_path / "out" / "verdict.safetensors")
    assert torch.equal(tensors["latent_range"], plain.calibration.latent_range)


def test_what_a_verdict_could_not_compute_is_not_exported(fitted, tmp_path):
    with pytest.raises(ValueError, match="omega = 0"):
        export.export(fitted.variant(omega=0.5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_is_killed_leaves_no_verdict_of_two_detectors(fitted, tmp_path, monkeypatch):
    (tmp_path / "verdict.py").touch()
    monkeypatch.setattr(export, "networks", lambda detector: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.export(fitted, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_export_gives_predicts_scores_without_this_package(fitted, images, tmp_path):
    files = []
    for i, image in enumerate(images[:4]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(files[-1])
    export.export(fitted, tmp_path / "out")
    code = ("import runpy, sys; runpy.run_path(sys.argv[0], run_name='__main__'); "
            "assert not any(n.split('.')[0] == 'd3ad' for n in sys.modules)")
    command = [sys.executable, "-c", f"import sys; sys.argv = sys.argv[1:]; {code}", tmp_path / "out" / "verdict.py",
               tmp_path / "out", *files]
    said = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    found = [json.loads(line) for line in said.splitlines()]
    expected = fitted.predict(torch.stack([data.load_image(file, 64) for file in files]))
    assert [line["score"] for line in found] == pytest.approx(expected.score.tolist(), abs=1e-4)
    assert [line["is_anomalous"] for line in found] == expected.is_anomalous.tolist()


def test_an_export_sees_the_pixels_that_predict_sees(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 16)
    plain = Image.fromarray(noise).convert("RGB")
    both = Image.fromarray(noise)
    files = dict(rgba=both, la=both.convert("LA"), rgb=plain, grey=plain.convert("L"),
                 palette=plain.quantize(), deep=deep)
    for name, image in files.items():
        image.save(tmp_path / f"{name}.png", **dict(transparency=3) if name == "palette" else {})
        for white in (4095, 65535):
            assert torch.allclose(verdict.pixels(tmp_path / f"{name}.png", 16, white)[0],
                                  data.load_image(tmp_path / f"{name}.png", 16, white), atol=1e-6), (name, white)
    with pytest.raises(AssertionError, match="outside 0..1023"):
        verdict.pixels(tmp_path / "deep.png", 16, 1023)


def test_an_export_refuses_settings_that_it_would_compute_otherwise(tiny, tmp_path, monkeypatch):
    save_file({"alpha_bar": torch.ones(1)}, tmp_path / "verdict.safetensors")
    monkeypatch.setattr(sys, "argv", ["verdict.py", str(tmp_path)])
    for changes in (dict(spacing="leading"), dict(omega=0.5), dict(latent_sample=True),
                    dict(dynamic=False, second_sampler=True)):
        (tmp_path / "export.json").write_text(json.dumps(tiny.replace(**changes).to_dict()))
        with pytest.raises(AssertionError, match="see d3ad/diffusion.py"):
            runpy.run_path(verdict.__file__, run_name="__main__")


# ---- anomalib ----

def test_anomalibs_folder_is_read_with_its_masks(parts):
    dataset = data.load("folder", parts)
    defects = [sample for sample in dataset.test if sample.label]
    assert {sample.defect for sample in defects} == {"defect"} and all(sample.mask.parent.name == "mask"
                                                                       for sample in defects)
    assert dataset.masks("test", 64).any((1, 2)).tolist() == dataset.labels("test").bool().tolist()


def test_a_prediction_becomes_anomalibs_batch_and_its_metrics_agree(fitted, images):
    pytest.importorskip("anomalib")
    from anomalib.metrics import AUROC

    from d3ad.app import anomalib_bridge
    prediction, labels, masks = fitted.predict(images), torch.arange(10) % 2, torch.zeros(10, 64, 64)
    batch = anomalib_bridge.to_image_batch(prediction, images, labels, masks)
    assert torch.allclose(anomalib_bridge.images_of(batch), images,
                          atol=1e-6) and batch.pred_label.tolist() == prediction.is_anomalous.tolist()
    batch.image = 2 * batch.image  # as after a Normalize
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        anomalib_bridge.images_of(batch)
    scorer = anomalib_bridge._Scorer()
    scorer.detector = fitted
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        scorer(batch.image)
    auroc = AUROC(fields=["pred_score", "gt_label"])
    auroc.update(batch)
    assert float(auroc.compute()) == pytest.approx(metrics.image_auroc(prediction.score, labels), abs=1e-5)
    with pytest.raises(ValueError, match="9 images and 10"):
        anomalib_bridge.to_image_batch(prediction, images[:9])


def test_anomalibs_engine_fits_tests_and_predicts(parts, settings, tmp_path):
    pytest.importorskip("anomalib")
    from anomalib.data import Folder
    from anomalib.engine import Engine

    from d3ad.app.anomalib_bridge import D3ADModule
    datamodule = Folder(name="parts", root=parts, normal_dir="good", abnormal_dir="defect", mask_dir="mask",
                        train_batch_size=4, eval_batch_size=4, num_workers=0, val_split_mode="same_as_test", seed=0)
    engine = Engine(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False,
                    enable_model_summary=False)
    module = D3ADModule("smoke", settings, visualizer=False)
    with pytest.raises(RuntimeError, match="no detector is fitted"):
        module.model(torch.zeros(1, 3, 64, 64))
    engine.fit(module, datamodule=datamodule)
    found = engine.test(module, datamodule=datamodule)[0]
    batches = list(datamodule.test_dataloader())
    images, labels, masks = (torch.cat([getattr(batch, name) for batch in batches])
                             for name in ("image", "gt_label", "gt_mask"))
    expected = module.detector.predict(2 * images - 1)
    assert found["image_AUROC"] == pytest.approx(metrics.image_auroc(expected.score, labels), abs=1e-4)
    assert found["pixel_AUROC"] == pytest.approx(metrics.pixel_auroc(expected.anomaly_map, masks), abs=1e-4)
    # the first keeps its callbacks
    other = Engine(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False)
    batch = other.predict(D3ADModule(detector=module.detector, visualizer=False, post_processor=False),
                          datamodule=datamodule)[0]
    again = module.detector.predict(2 * batch.image - 1)
    assert torch.allclose(batch.pred_score, again.score,
                          atol=1e-5) and batch.pred_label.tolist() == again.is_anomalous.tolist()
