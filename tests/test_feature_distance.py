"""The Mahalanobis distance of features: against numpy and scipy, and through the detector, saved and exported."""
import copy

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from test_detector import same

from d3ad import D3AD, maps
from d3ad.app import export, verdict
from d3ad.calibration import Calibration
from d3ad.infra.checkpoint import read_tensors
from d3ad.infra.files import load_tensors, save_tensors
from d3ad.infra.spread import SHRINKAGE, Spread
from d3ad.speed import presets
from d3ad.speed.benchmark.reference import Reference
from d3ad.study.outcome import Outcome


@pytest.fixture(scope="module")
def whitened(fitted) -> D3AD:
    return fitted.variant(feature_distance="mahalanobis", standardise=(), weight=0.3)


def correlated(count: int) -> torch.Tensor:
    """Maps (count, 3, 2, 2) of vectors whose channels hang together, about a mean that is not 0."""
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.3, 0.1]])
    return torch.einsum("ij,bjhw->bihw", mixing, torch.randn(count, 3, 2, 2)) + torch.tensor([1.0, -2, 0]).view(3, 1, 1)


def test_a_spread_is_numpy_s_covariance_however_it_is_divided():
    everything = correlated(50)
    rows = everything.movedim(1, -1).reshape(-1, 3).double().numpy()
    covariance = np.cov(rows.T, bias=True)
    covariance += SHRINKAGE * np.trace(covariance) / 3 * np.eye(3)
    for size in (50, 7):
        spread = Spread()
        for part in everything.split(size):
            spread.add(part)
        mean, whitening = spread.whitening()
        assert np.allclose(mean, rows.mean(0), atol=1e-6)
        assert np.allclose((whitening @ whitening.T).double().numpy() @ covariance, np.eye(3), atol=1e-4)


def test_the_distance_is_scipy_s_squared_over_the_channels():
    usual, a, b = correlated(50), torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    spread = Spread()
    spread.add(usual)
    mean, whitening = spread.whitening()
    found, inverse = maps.mahalanobis_distance(a, b, mean, whitening), (whitening @ whitening.T).double().numpy()
    assert found.shape == (2, 4, 5)
    theirs = mahalanobis((a - b)[1, :, 2, 3].double().numpy(), mean.double().numpy(), inverse) ** 2 / 3
    assert float(found[1, 2, 3]) == pytest.approx(theirs, rel=1e-4)
    # usual differences would be at 1 on average, were nothing added to the variances
    covariance = np.cov(usual.movedim(1, -1).reshape(-1, 3).double().numpy().T, bias=True)
    own = maps.mahalanobis_distance(usual, torch.zeros(()), mean, whitening).mean()
    assert float(own) == pytest.approx(np.trace(covariance @ inverse) / 3, rel=1e-4)


def test_features_that_never_differ_give_no_nan():
    spread = Spread()
    spread.add(torch.zeros(2, 3, 4, 4))
    assert maps.mahalanobis_distance(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), *spread.whitening()).max() == 0


def test_usual_differences_are_1_at_most_on_average(whitened):
    """On the images that calibrate, at a fixed step, in block 2: 1, or less for the shrinkage."""
    fixed = whitened.variant(dynamic=False, map_blocks=(2,))
    seen = fixed._look(fixed.calibration_images)
    _, _, features_hat = fixed._rebuild(seen, torch.full_like(seen["t_hat"], fixed.config.t_max))
    usual = fixed.calibration.usual_differences([fixed.backbone.widths[2]])
    distance = maps.mahalanobis_distance(seen["features"][2], features_hat[2], *usual[0])
    assert 0.5 < float(distance.mean()) <= 1.001


def test_only_the_feature_map_changes(fitted, images, whitened):
    one, other = whitened.predict(images), fitted.predict(images)
    assert not same(one, other, 1e-3) and torch.equal(one.latent_map, other.latent_map)
    assert torch.equal(one.reconstruction, other.reconstruction)


def test_a_distance_that_was_not_measured_is_no_cosine(whitened, images):
    empty = copy.copy(whitened)
    empty.calibration = Calibration.neutral()
    with pytest.raises(ValueError, match="differences of 0 channels, not of 384"):
        empty.predict(images)


def test_maps_can_be_standardised_besides_and_blocks_take_any_order(fitted, images, whitened):
    both = fitted.variant(feature_distance="mahalanobis", standardise=("feature",)).predict(images)
    assert both.score.isfinite().all() and torch.equal(both.feature_map, whitened.predict(images).feature_map)
    turned = whitened.variant(map_blocks=(3, 2)).predict(images)
    assert torch.allclose(turned.feature_map, both.feature_map, rtol=1e-4)


def test_features_that_are_adapted_anew_are_measured_anew(whitened, images):
    other = whitened.readapted(images, whitened.backbone, adapt_epochs=1)
    assert not torch.equal(other.calibration.difference_mean, whitened.calibration.difference_mean)
    assert other.predict(images).score.isfinite().all()


def test_a_preset_measures_it_with_its_own_steps_and_is_saved_with_it(whitened, images, tmp_path):
    slow = whitened.variant(num_steps=10)
    fast = presets.apply(slow, "fast")
    assert not torch.equal(fast.calibration.difference_mean, slow.calibration.difference_mean)
    folder = fast.save(tmp_path / "model")
    assert same(presets.load(folder).predict(images), fast.predict(images), 1e-6)


def test_large_values_are_kept_as_the_largest_that_fit(whitened, images, tmp_path):
    found = whitened.predict(images)
    found.feature_map[0, 0, 0] = 1e6
    Outcome(found, {}).save(tmp_path / "outcome.safetensors")
    assert float(Outcome.load(tmp_path / "outcome.safetensors").prediction.feature_map[0, 0, 0]) == 65504


def test_each_block_has_its_own(whitened):
    widths = [whitened.backbone.widths[j] for j in whitened.config.map_blocks]
    blocks = whitened.calibration.usual_differences(widths)
    assert [(len(mean), *whitening.shape) for mean, whitening in blocks] == [(n, n, n) for n in widths]
    assert torch.equal(torch.block_diag(*(whitening for _, whitening in blocks)),
                       whitened.calibration.difference_whitening)


def test_other_settings_measure_it_anew(whitened):
    noised = whitened.variant(omega=1.0)
    assert not torch.equal(noised.calibration.difference_mean, whitened.calibration.difference_mean)
    back = noised.variant(omega=0.0)
    assert torch.equal(back.calibration.difference_whitening, whitened.calibration.difference_whitening)
    assert len(whitened.variant(feature_distance="cosine").calibration.difference_mean) == 0


def test_it_is_saved(whitened, images, tmp_path):
    folder = whitened.save(tmp_path / "model")
    assert same(D3AD.load(folder).predict(images), whitened.predict(images), 1e-6)
    file = folder / "calibration" / "model.safetensors"
    tensors = read_tensors(file)
    for name, value, message in (("difference_mean", None, "no difference_mean in it"),
                                 ("difference_mean", torch.zeros(5), "not of 384 channels"),
                                 ("difference_mean", torch.zeros(0), "not of 384 channels"),
                                 ("difference_whitening", torch.eye(5), "not of 384 channels")):
        changed = {key: tensor for key, tensor in (tensors | {name: value}).items() if tensor is not None}
        save_tensors(file, changed, {})
        with pytest.raises(ValueError, match=message):
            D3AD.load(folder)


def test_a_detector_from_before_is_read(fitted, images, tmp_path):
    folder = fitted.save(tmp_path / "model")
    file = folder / "calibration" / "model.safetensors"
    save_tensors(file, {name: value for name, value in read_tensors(file).items() if "difference" not in name}, {})
    assert same(D3AD.load(folder).predict(images), fitted.predict(images), 1e-6)


def test_the_reference_and_the_exported_verdict_say_the_same(whitened, images, tmp_path, monkeypatch):
    found = presets.apply(whitened, "faithful").predict(images)
    reference = Reference(whitened).predict(images)
    assert torch.allclose(found.feature_map, reference["feature"], atol=1e-3 * float(reference["feature"].max()))
    networks = dict(encoder=whitened.codec.encode, decoder=whitened.codec.decode,
                    unet=lambda z, t: whitened.unet(z, t).sample,
                    features=lambda x: tuple(whitened.backbone(x).values()))
    monkeypatch.setattr(export, "networks", lambda detector: {})
    export.export(whitened, tmp_path)
    tensors, _ = load_tensors(tmp_path / "verdict.safetensors")
    score = verdict.score(images[:1], networks, tensors, whitened.config.to_dict())
    assert score == pytest.approx(float(found.score[0]), rel=1e-3)
