"""Eq. 9, its two maps, the Gaussian and the score, against scipy and values by hand."""
import numpy as np
import pytest
import torch
from scipy import ndimage

from d3ad import maps


def test_latent_map_by_hand():
    z0, z_hat = torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
    z_hat[0, :, 0, 1] = torch.tensor([1.0, -1.0, 2.0, 0.0])
    assert maps.latent_map(z0, z_hat).tolist() == [[[0, 1], [0, 0]]]
    assert maps.latent_map(z0, z_hat, size=3)[0].tolist() == [[0, 0.5, 1], [0, 0.25, 0.5], [0, 0, 0]]  # corners aligned


def test_cosine_distance_by_hand():
    a, b = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    assert float(maps.cosine_distance(a, b)) == pytest.approx(1)
    assert float(maps.cosine_distance(a, 5 * a)) == pytest.approx(0, abs=1e-6)
    assert float(maps.cosine_distance(a, -a)) == pytest.approx(2)


def test_feature_map_is_the_sum_over_blocks():
    f, g = torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)
    f_hat, g_hat = torch.randn(2, 8, 4, 4), torch.randn(2, 16, 2, 2)
    both = maps.feature_map([f, g], [f_hat, g_hat], 16)
    each = maps.feature_map([f], [f_hat], 16) + maps.feature_map([g], [g_hat], 16)
    assert both.shape == (2, 16, 16) and torch.allclose(both, each)
    with pytest.raises(ValueError):
        maps.feature_map([f, g], [f_hat], 16)


def test_min_max():
    x = torch.tensor([[[1.0, 3.0], [2.0, 5.0]]])
    assert maps.min_max(x).flatten().tolist() == [0, 0.5, 0.25, 1]
    assert maps.min_max(x, 1.0, 3.0).flatten().tolist() == [0, 1, 0.5, 2]
    assert maps.min_max(torch.full((1, 2, 2), 7.0)).abs().max() == 0
    assert maps.min_max(x, float("nan"), float("nan")).isnan().all()  # never a silent 0


@pytest.mark.parametrize("sigma", [0.8, 2.0, 4.0])
def test_gaussian_agrees_with_scipy(sigma):
    x = torch.rand(2, 64, 64)
    theirs = np.stack([ndimage.gaussian_filter(m.double().numpy(), sigma, mode="mirror", truncate=4) for m in x])
    assert np.abs(maps.smooth(x, sigma).numpy() - theirs).max() < 1e-5
    assert len(maps.gaussian_kernel(4.0)) == 33


def test_anomaly_map_is_eq_9():
    latent, feature = torch.rand(2, 40, 40), torch.rand(2, 40, 40)
    assert torch.allclose(maps.anomaly_map(latent, feature, 0.85, 0), 0.85 * latent + 0.15 * feature)
    smoothed = 0.85 * maps.smooth(latent, 4) + 0.15 * maps.smooth(feature, 4)  # the filter is linear
    assert torch.allclose(maps.anomaly_map(latent, feature), smoothed, atol=1e-6)
    with pytest.raises(ValueError, match="lambda"):
        maps.anomaly_map(latent, feature, weight=1.2)
    with pytest.raises(ValueError, match="reaches"):
        maps.anomaly_map(latent[:, :8, :8], feature[:, :8, :8])


def test_score_is_the_maximum():
    assert maps.image_score(torch.tensor([[[0.1, 0.7], [0.2, 0.3]]])).tolist() == pytest.approx([0.7])
