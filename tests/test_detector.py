"""D3AD as a whole, with tiny networks: independence of the batch, saving, errors."""
import copy
import warnings
from math import isnan

import pytest
import torch
from PIL import Image

from d3ad import D3AD, Config, data, from_scratch, training
from d3ad.conditioning import DynamicConditioning
from d3ad.data.apart import set_apart
from d3ad.data.given import RangeWarning


def same(a, b, atol=1e-5):
    return all(torch.allclose(getattr(a, n), getattr(b, n), atol=atol)
               for n in ("score", "anomaly_map", "reconstruction", "latent_map", "feature_map", "distance"))


def test_prediction_has_the_documented_shapes(fitted, images):
    p = fitted.predict(images[:3])
    assert p.score.shape == p.t_hat.shape == p.is_anomalous.shape == (3,) and len(p) == 3
    assert p.anomaly_map.shape == p.latent_map.shape == p.feature_map.shape == (3, 64, 64)
    assert p.reconstruction.shape == (3, 3, 64, 64) and p.reconstruction.abs().max() <= 1
    assert torch.equal(p.score, p.anomaly_map.amax((1, 2))) and set(p.t_hat.tolist()) <= {20, 30, 40, 50, 60, 70, 80}


@pytest.mark.parametrize("changes", [{}, dict(omega=1.0), dict(latent_sample=True),
                                     dict(dynamic=False, spacing="leading", guidance=4.0)])
def test_an_image_alone_scores_as_in_a_batch_in_any_order(fitted, images, changes):
    detector = fitted.variant(**changes) if changes else fitted
    together, backwards = detector.predict(images), detector.predict(images.flip(0))
    assert torch.allclose(together.score, backwards.score.flip(0), atol=1e-5)
    for i in (0, 7):
        alone = detector.predict(images[i:i + 1])
        assert torch.allclose(alone.score, together.score[i:i + 1], atol=1e-5)
        assert torch.allclose(alone.anomaly_map[0], together.anomaly_map[i], atol=1e-5)


def test_saved_and_loaded_it_says_the_same(fitted, images, tmp_path):
    folder = fitted.save(tmp_path / "model")
    again = D3AD.load(folder)
    assert same(again.predict(images), fitted.predict(images),
                atol=1e-6) and again.config.to_dict() == fitted.config.to_dict() | {"device": "auto"}
    assert sorted(p.name for p in folder.iterdir()) == ["autoencoder", "calibration", "conditioning", "config.json",
                                                        "features", "unet"]
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".json", ".safetensors"}
    fitted.save(folder)  # again, over the old one
    assert not list(tmp_path.glob("*.part"))


def test_what_was_set_after_the_training_is_saved_too(fitted, images, tmp_path):
    detector = copy.copy(fitted)
    detector.set_threshold(images[:4])
    detector.white = 4095
    again = D3AD.load(detector.save(tmp_path / "model"))
    assert again.guarantee == detector.guarantee and again.guarantee.num_images == 4
    assert again.white == 4095 and again.losses == fitted.losses and set(again.losses) >= {"diffusion", "adaptation"}
    expected, found = detector.predict(images), again.predict(images)
    assert found.threshold == expected.threshold == detector.guarantee.value
    assert torch.equal(found.is_anomalous, expected.is_anomalous)


def test_training_twice_gives_the_same_weights(tiny, images, fitted):
    again = D3AD(tiny).fit(images)
    assert torch.equal(again.predict(images).score, fitted.predict(images).score)


def test_an_interrupted_fit_goes_on(tiny, images, fitted, tmp_path, monkeypatch):
    adapt = training.adapt
    monkeypatch.setattr(training, "adapt", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        D3AD(tiny).fit(images, tmp_path)
    monkeypatch.setattr(training, "adapt", adapt)
    resumed = D3AD(tiny).fit(images, tmp_path)
    assert torch.equal(resumed.predict(images).score, fitted.predict(images).score)


def test_training_states_of_other_images_or_settings_are_not_taken_over(tiny, images, tmp_path):
    D3AD(tiny).fit(images, tmp_path / "states")
    for config, others in ((tiny, images.flip(0)), (tiny, images[:9]), (tiny.replace(train_steps=4), images)):
        with pytest.raises(ValueError, match="states holds training states of other images, settings or networks: rem"):
            D3AD(config).fit(others, tmp_path / "states")
    with pytest.raises(ValueError, match="settings or networks"):
        D3AD(tiny).fit(images, tmp_path / "states", start=training.make_unet(tiny))
    found = D3AD(tiny.replace(weight=0.3, predict_batch=2)).fit(images, tmp_path / "states")  # of no training
    assert len(found.losses["diffusion"]) == 3


def test_normalisation_over_the_test_set_spans_zero_to_one(fitted, images):
    p = fitted.variant(standardise=(), sigma=0.0, weight=1.0).predict(images, normalisation="test")
    assert float(p.anomaly_map.min()) == 0 and float(p.anomaly_map.max()) == 1
    with pytest.raises(ValueError, match="normalisation"):
        fitted.predict(images, normalisation="none")


def test_no_threshold_belongs_to_the_range_of_the_test_set(fitted, images):
    alone = fitted.predict(images)
    for p in (fitted.predict(images, normalisation="test"), fitted.renormalised(alone, "test")):
        assert isnan(p.threshold)
        with pytest.raises(ValueError, match="belongs to the ranges of training images"):
            p.is_anomalous  # noqa: B018
    assert fitted.renormalised(p, "train").threshold == alone.threshold == float(fitted.calibration.threshold)


def test_a_threshold_takes_images_of_another_range_without_a_warning(fitted, images):
    detector = copy.copy(fitted)
    expected = detector.set_threshold(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = detector.set_threshold((images + 1) / 2, value_range=(0, 1))
    assert found.value == pytest.approx(expected.value, abs=1e-4)
    with pytest.warns(RangeWarning) as said:
        detector.set_threshold(images.abs())
    assert len(said) == 1


def test_a_codec_of_other_channels_is_refused_before_training(tiny, images, fitted):
    other = tiny.replace(latent_channels=fitted.codec.channels + 1)
    with pytest.raises(ValueError, match="latent_channels is .*, but the autoencoder has"):
        D3AD(other).fit(images, codec=fitted.codec)


def test_threshold_is_a_quantile_of_the_calibration_images_scores(fitted):
    plain = fitted.variant(standardise=())
    prediction = plain.predict(fitted.calibration_images)
    assert prediction.threshold == pytest.approx(float(prediction.score.quantile(0.99)), abs=1e-5)


def test_images_set_apart_are_calibrated_on_and_not_trained_on(tiny, images, fitted):
    train, held = set_apart(images, 0.3)
    assert len(train) == 7 and len(held) == 3 and len(torch.cat([train, held]).unique(dim=0)) == 10
    apart = D3AD(tiny.replace(calibration_share=0.3)).fit(images)
    assert torch.equal(apart.calibration_images, held) and len(apart.conditioning.reference) == 7
    assert same(apart.predict(images), D3AD(tiny).fit(train).predict(images)) is False  # calibrated on others
    assert torch.equal(apart.predict(images).reconstruction, D3AD(tiny).fit(train).predict(images).reconstruction)
    again = apart.readapted(images, apart.backbone, adapt_epochs=0)
    assert torch.equal(again.calibration_images, held) and len(again.conditioning.reference) == 7


def test_variant_leaves_the_original_alone(fitted, images):
    before = fitted.predict(images).score
    fitted.variant(dynamic=False, t_max=40)
    assert torch.equal(fitted.predict(images).score, before)
    assert fitted.variant(dynamic=False, t_max=40).predict(images).t_hat.tolist() == [40] * 10


def test_a_variant_has_no_guarantee_and_conditions_as_its_settings_say(fitted, images):
    detector = copy.copy(fitted)
    detector.set_threshold(images[:4])
    same_settings, other = detector.variant(calibration_levels=2), detector.variant(calibration_levels=2, k=2)
    assert detector.guarantee and same_settings.guarantee is None and other.guarantee is None
    assert same_settings.conditioning is fitted.conditioning
    assert all(getattr(other, part) is getattr(fitted, part) for part in ("codec", "unet", "backbone", "networks"))
    config = other.config
    by_hand = DynamicConditioning(2, config.num_bins, config.t_max, config.min_bin, config.round_to,
                                  config.include_self).fit(fitted.conditioning.reference)
    expected = by_hand.t_hat(fitted.vectors(images))
    assert torch.equal(other.predict(images).t_hat, expected)
    assert not torch.equal(fitted.predict(images).t_hat, expected)


def test_other_sizes_are_resized_and_folders_are_read(fitted, images, tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, images):
        Image.fromarray(((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()).save(file)
    stacked = torch.stack([data.load_image(file, 64) for file in files])
    assert torch.equal(fitted.predict(tmp_path).score, fitted.predict(stacked).score)
    assert fitted.predict(torch.zeros(2, 3, 100, 80)).anomaly_map.shape == (2, 64, 64)


def test_the_same_images_in_another_form_have_the_same_scores(fitted, images):
    pixels = ((images[:4] + 1) * 127.5).round().byte()
    shares = pixels / 255
    expected = fitted.predict(2 * shares - 1).score
    forms = [(pixels, None), (pixels.numpy(), None), (pixels.permute(0, 2, 3, 1).numpy(), None), (shares, (0, 1)),
             ((2 * shares - 1).permute(0, 2, 3, 1).numpy(), None)]
    for form, value_range in forms:
        assert torch.allclose(fitted.predict(form, value_range=value_range).score, expected, atol=1e-4)


def test_refuses_what_it_cannot_train_on(tiny, images, tmp_path):
    with pytest.raises(ValueError, match="k = 3"):
        D3AD(tiny).fit(images[:2])
    with pytest.raises(FileNotFoundError, match="config.json"):
        D3AD.load(tmp_path)


def test_default_config_is_the_papers():
    assert D3AD().config == Config()


def test_statistics_between_two_levels_are_interpolated_by_hand():
    from d3ad.calibration import at_step
    levels, statistics = torch.tensor([20, 50, 80]), torch.tensor([1.0, 4.0, 10.0]).view(3, 1, 1)
    interpolated = at_step(levels, statistics, torch.tensor([20, 30, 50, 60, 80])).flatten().tolist()
    assert interpolated == pytest.approx([1, 2, 4, 6, 10])
    assert at_step(levels[:1], statistics[:1], torch.tensor([20, 70])).flatten().tolist() == [1, 1]


def test_few_calibrated_levels_come_close_to_all(fitted, images):
    every, few = fitted.variant(calibration_levels=0), fitted.variant(calibration_levels=2)
    assert set(every.config.standardise) == {"latent", "feature"}
    assert few.calibration.levels.tolist() == [20, 80] and len(every.calibration.levels) == 7
    assert torch.corrcoef(torch.stack([every.predict(images).score, few.predict(images).score]))[0, 1] > 0.9


def test_what_is_remembered_changes_nothing(fitted, images):
    from d3ad.study.remembering import Remembering
    remembering = fitted.variant(Remembering(fitted.networks))
    first, second = remembering.predict(images), remembering.predict(images)
    assert remembering.networks.seen and same(first, second, 0) and same(first, fitted.predict(images), 1e-6)
    noised = remembering.variant(omega=1.0).predict(images)
    assert same(noised, fitted.variant(omega=1.0).predict(images), 1e-6)


def test_adapting_anew_as_before_gives_the_same_detector(tiny, images, fitted):
    backbone = from_scratch.fit_backbone(images, tiny, None, {})
    assert torch.equal(fitted.readapted(images, backbone).predict(images).score, fitted.predict(images).score)
    unadapted = fitted.readapted(images, backbone, adapt_epochs=0)
    assert all(torch.equal(a, b) for a, b in zip(unadapted.backbone.state_dict().values(),
                                                 backbone.state_dict().values()))


def test_a_backbone_that_is_handed_over_stays_as_it_was(tiny, images, fitted):
    backbone = copy.deepcopy(fitted.backbone)
    before = copy.deepcopy(backbone.state_dict())
    config = tiny.replace(train_steps=1, calibration_levels=2)
    detector = D3AD(config).fit(images, codec=fitted.codec, backbone=backbone)
    adapted = detector.backbone.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in adapted.items())


def test_the_second_sampler_is_used_without_a_dynamic_step_only(fitted, images):
    def reconstructed(**changes):
        return fitted.variant(standardise=(), **changes).predict(images[:2]).reconstruction

    for dynamic in (False, True):
        first, second = (reconstructed(dynamic=dynamic, second_sampler=chosen) for chosen in (False, True))
        assert torch.equal(first, second) == dynamic


def test_a_variant_cannot_change_what_was_trained(fitted):
    with pytest.raises(ValueError, match="latent_channels"):
        fitted.variant(latent_channels=8)
