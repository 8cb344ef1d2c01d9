"""Presets and the benchmark: fast paths give the reference's numbers, and what is measured is what is said."""
import copy
import json

import pytest
import torch

from d3ad import training
from d3ad.app import cli
from d3ad.autoencoders import LatentCodec
from d3ad.baselines import BASELINES, title_of
from d3ad.speed import benchmark, presets
from d3ad.speed.benchmark import inference, machine, methods, metrics, networks, reference
from d3ad.speed.presets import PRESETS, FastNetworks, low_precision_pays


@pytest.fixture(scope="module")
def plain():
    return networks.untrained(networks.config_of("tiny"), num_reference=30)


def test_the_faithful_preset_gives_the_reference_s_numbers(plain):
    images = networks.drawn_images(5, 64)
    expected = reference.Reference(plain).predict(images)
    assert len(expected["t_hat"].unique()) > 1  # different steps in one batch
    found, same_steps = inference.difference(presets.apply(plain, "faithful"), images, expected)
    assert max(found.values()) < 1e-3 and same_steps == 1


def test_the_paper_s_autoencoder_one_image_at_a_time_is_the_same(monkeypatch):
    shape = networks.STABLE_DIFFUSION | dict(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
    codec = LatentCodec(networks.AutoencoderKL(**shape).eval(), "kl")
    images = networks.drawn_images(3, 64)
    mean, std = codec.encode(images)
    posterior = codec.model.encode(images).latent_dist
    torch.testing.assert_close(mean, codec.scale * posterior.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(std, codec.scale * posterior.std, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(codec.decode(mean), codec.model.decode(mean / codec.scale).sample.clamp(-1, 1),
                               atol=1e-5, rtol=1e-4)


def test_fewer_steps_and_low_precision_stay_near(fitted, images):
    exact = fitted.predict(images)
    torch.testing.assert_close(presets.apply(fitted, "faithful").predict(images).score, exact.score, atol=1e-5,
                               rtol=1e-5)
    one = presets.apply(fitted, "1 step")
    assert one.config.num_steps == 1 and torch.equal(one.predict(images).t_hat, exact.t_hat)
    low = FastNetworks(fitted, torch.bfloat16)
    z0, _ = fitted.networks.encode(images)
    torch.testing.assert_close(low.encode(images)[0], z0, atol=0.1, rtol=0.05)
    assert next(fitted.unet.parameters()).dtype == torch.float32  # the detector's own weights stay


def test_the_tiny_autoencoder_takes_the_place_of_the_paper_s(fitted, images):
    other = networks.untrained(networks.config_of("tiny"), num_reference=30)
    shape = networks.STABLE_DIFFUSION | dict(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
    other.codec = LatentCodec(networks.AutoencoderKL(**shape).eval(), "kl")
    found = presets.apply(other, "fast", networks.tiny_autoencoder())
    assert found.codec.kind == "tiny" and found.predict(networks.drawn_images(2, 64)).score.isfinite().all()
    assert other.codec.kind == "kl"


def test_light_features_take_the_place_of_the_paper_s(tmp_path):
    config = networks.config_of("tiny").replace(backbone="resnet34.tv_in1k")
    heavy, images = networks.untrained(config, num_reference=30), networks.drawn_images(2, 64)
    light = presets.apply(heavy, "fast", light=networks.light_features())
    assert light.backbone.name == light.config.backbone == "tf_efficientnet_lite0"
    assert heavy.backbone.name == heavy.config.backbone == "resnet34.tv_in1k"
    assert len(light.conditioning.reference) == len(heavy.calibration_images)
    score = light.predict(images).score
    assert torch.equal(presets.load(light.save(tmp_path / "model")).predict(images).score, score)
    with pytest.raises(ValueError, match="neighbours"):
        heavy.calibration_images = heavy.calibration_images[:2]
        presets.apply(heavy, "fast", light=networks.light_features())


def test_a_saved_detector_keeps_its_preset(fitted, images, tmp_path):
    fast = presets.apply(fitted, "fast")
    loaded = presets.load(fast.save(tmp_path / "model"))
    assert loaded.preset == "fast" and loaded.config.num_steps == 1
    assert torch.equal(loaded.predict(images).score, fast.predict(images).score)


def test_a_detector_s_own_preset_keeps_its_threshold(fitted, images):
    detector = copy.copy(fitted)
    guarantee = detector.set_threshold(images[:4])
    kept, other = presets.apply(detector, "faithful"), presets.apply(detector, "3 steps")
    assert kept.guarantee == guarantee and other.guarantee is None
    assert kept.predict(images[:1]).threshold == guarantee.value != other.predict(images[:1]).threshold


def test_a_preset_goes_on_a_faithful_detector_only(fitted):
    fast = presets.apply(fitted, "3 steps")
    assert presets.apply(fast, "3 steps").config.num_steps == 3
    with pytest.raises(ValueError, match="has the preset '3 steps', .* fit anew"):
        presets.apply(fast, "faithful")


def test_compiling_goes_through_torch_compile_and_nothing_else_changes(fitted, images, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model, options: compiled.append(model) or model)
    assert torch.equal(presets.apply(fitted, "faithful", compiled=True).predict(images).score,
                       fitted.predict(images).score)
    assert compiled == [fitted.unet]


def test_a_metric_whose_package_is_missing_is_left_out(monkeypatch, capsys):
    def fail(maps, masks):
        raise ImportError("no anomalib")

    monkeypatch.setattr(metrics, "anomalib_aupro", fail)
    rows = metrics.measure(num_maps=6, size=64, largest=6)
    assert "anomalib's AUPRO" not in {row["method"] for row in rows} and len(rows) == 5
    assert capsys.readouterr().out == "anomalib's AUPRO is not measured: no anomalib\n"


def test_an_unknown_preset_is_refused_with_all_names(fitted):
    with pytest.raises(ValueError, match="must be one of faithful, .*fast; got 'quick'"):
        presets.apply(fitted, "quick")


def test_low_precision_is_used_where_it_pays(fitted, monkeypatch):
    monkeypatch.setattr("d3ad.speed.presets.low_precision_pays", lambda device: False)
    assert presets.apply(fitted, "fast").networks.dtype == torch.float32
    monkeypatch.setattr("d3ad.speed.presets.low_precision_pays", lambda device: True)
    assert presets.apply(fitted, "fast").networks.dtype == torch.bfloat16
    assert low_precision_pays(torch.device("mps")) is False


def test_training_in_bfloat16_learns_what_float32_learns(tiny, images):
    mean = torch.randn(8, tiny.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = tiny.replace(train_precision=precision, train_steps=6)
        torch.manual_seed(0)
        unet = training.make_unet(config)
        losses[precision] = training.train_diffusion(unet, mean, torch.zeros_like(mean), config)
        assert next(unet.parameters()).dtype == torch.float32
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_ways_to_compute_pro_agree_where_they_should():
    maps, masks = metrics.drawn_maps(6, 64)
    exact = metrics.metrics.pro(maps, masks)
    assert metrics.anomalib_aupro(maps, masks) == pytest.approx(exact, abs=1e-4)
    assert metrics.loop_pro(maps, masks) == pytest.approx(metrics.metrics.pro_200(maps, masks), abs=1e-9)


def test_the_command_writes_all_parts_and_keeps_other_machines(tmp_path, capsys, monkeypatch):
    few = {name: BASELINES[name] for name in ("PaDiM", "AnoDDPM", "DDAD", "GANomaly")}  # notebook 07 times them all
    monkeypatch.setattr(methods, "BASELINES", few)
    other = [dict(device="another machine", size="tiny", preset="reference")]
    (tmp_path / "inference.json").write_text(json.dumps(other))
    assert cli.main(["benchmark", "--size", "tiny", "--batch", "2", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "inference.json").read_text())
    expected = ["reference", "faithful", "fast"]
    expected += ["fast, float32"] if presets.low_precision_pays(torch.device("cpu")) else []
    assert rows[0] == other[0] and [row["preset"] for row in rows[1:]] == expected
    faithful = rows[2]
    assert faithful["images_per_second"] == pytest.approx(1 / faithful["seconds_per_image"])
    assert faithful["speedup"] == pytest.approx(rows[1]["seconds_per_image"] / faithful["seconds_per_image"])
    calls = {part["part"]: part["calls"] for part in faithful["parts"]}
    assert calls == dict(features=2, encode=1, conditioning=1, eps=10, decode=1, maps=1)
    assert max(faithful["largest_difference"].values()) < 1e-3
    of_methods = json.loads((tmp_path / "methods.json").read_text())
    assert {row["method"] for row in of_methods} == {"D3AD, faithful", "D3AD, fast", *map(title_of, few)}
    assert {row["batch"] for row in of_methods} == {1, 2} and all(row["seconds_per_image"] > 0 for row in of_methods)
    assert {row["method"] for row in of_methods if row["estimated"]} == {"AnoDDPM"}
    training_rows = json.loads((tmp_path / "training.json").read_text())
    assert len(training_rows) == 3 and all(row["share_of_limit"] > 0 for row in training_rows)
    assert {row["metric"] for row in json.loads((tmp_path / "metrics.json").read_text())} == {"PRO", "P-AUROC"}
    growth = json.loads((tmp_path / "growth.json").read_text())
    assert {(row["axis"], row["number"]) for row in growth} == {
        ("photographs", 4), ("photographs", 8), ("training images", 50), ("training images", 100), ("pixels", 64),
        ("pixels", 128)}
    assert all(row["seconds"] > 0 and row["megabytes"] >= 0 for row in growth)
    assert (tmp_path / "growth.png").stat().st_size > 5_000
    printed = capsys.readouterr().out
    assert "faithful: " in printed and "8 photographs: " in printed


def test_flops_are_counted_as_by_hand():
    """A 1 x 1 convolution from 3 to 5 channels on 8 x 8 places: 2 x 3 x 5 x 64 FLOP; attention of 64 tokens: 2 x 2 x 64
    x 64 x 5.
    """
    with machine.flop_counter() as counter:
        tokens = torch.nn.Conv2d(3, 5, 1)(torch.zeros(1, 3, 8, 8)).flatten(2).mT.unsqueeze(1)
        torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    assert counter.get_total_flops() == 2 * 3 * 5 * 64 + 4 * 64 * 64 * 5


def test_arithmetic_counted_on_shapes_is_that_of_real_images(plain):
    counted = networks.arithmetic("tiny")
    parts = inference.parts(plain, plain, networks.drawn_images(1, 64), 1.0)
    assert {part["part"]: pytest.approx(part["gflop"]) for part in parts if part["part"] in counted} == counted


def test_every_part_is_known():
    with pytest.raises(ValueError, match="part must be one of"):
        benchmark.measured("speed", "tiny", 2, None)
    assert set(PRESETS) >= {"faithful", "fast"}
