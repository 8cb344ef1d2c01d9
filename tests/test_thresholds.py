"""The threshold from good images: by hand, and by drawing many of them."""
import numpy as np
import pytest
import torch

from d3ad.calibration import FLOOR, by_the_others, calibrate
from d3ad.infra.thresholds import threshold_for


def test_by_hand():
    found = threshold_for(np.arange(1, 100), 0.05)          # 99 scores: the 5th largest leaves 5 of 100
    assert found.value == 95 and found.expected_rate == pytest.approx(0.05) and found.num_images == 99
    few = threshold_for([0.2, 0.9, 0.4], 0.01)              # 3 scores can't guarantee 1 %
    assert few.value == 0.9 and few.expected_rate == pytest.approx(0.25)
    assert "1 % as asked would take 99 such images" in str(few) and "as asked" not in str(found)
    # 1 / 34 is below 3 %, 1 / 33 is not
    assert "3 % as asked would take 33 such images" in str(threshold_for([1.0], 0.03))


def test_what_it_guarantees_is_what_happens():
    rng = np.random.default_rng(0)
    rates, inside = [], 0
    for _ in range(2000):
        found = threshold_for(rng.random(40), 0.05)         # of uniform scores, the rate is 1 - threshold
        rates.append(1 - found.value)
        inside += found.interval[0] <= rates[-1] <= found.interval[1]
    assert np.mean(rates) == pytest.approx(found.expected_rate, abs=0.003)
    assert inside / 2000 == pytest.approx(0.9, abs=0.02)


def test_each_calibration_image_is_standardised_by_the_others():
    flat = torch.tensor([1.0, 2.0, 3.0, 10.0]).view(4, 1, 1).expand(4, 2, 2)
    other_level = torch.zeros(4, 2, 2)
    z = by_the_others([other_level, flat], torch.tensor([1, 1, 1, 1]))
    # the last by 1, 2, 3: mean 2, standard deviation 1, and the share of it that is added
    assert z[3].flatten().tolist() == pytest.approx([(10 - 2) / (1 + FLOOR)] * 4)
    others = torch.tensor([2.0, 3.0, 10.0])
    assert z[0, 0, 0] == pytest.approx(float((1 - others.mean()) / ((1 + FLOOR) * others.std())))


def test_an_outlier_among_the_calibration_images_does_not_hide_itself():
    latent = torch.tensor([1.0, 2.0, 3.0, 10.0]).view(4, 1, 1).expand(4, 2, 2)
    calibration = calibrate(lambda t: (latent, latent), torch.full((4,), 20), torch.tensor([20]),
                            ("latent", "feature"), lambda latent, feature, t, c: latent.amax((1, 2)), 1.0)
    mean, std = latent[:, 0, 0].mean(), latent[:, 0, 0].std()
    assert calibration.threshold == pytest.approx((10 - 2) / (1 + FLOOR))
    assert calibration.threshold > (10 - mean) / ((1 + FLOOR) * std) == calibration.standardised(
        latent[3:], latent[3:], torch.tensor([20]))[0].max()
    assert calibration.latent_range[1] == calibration.threshold


@pytest.mark.parametrize("standardise", [(), ("latent",), ("feature",), ("latent", "feature")])
def test_only_the_maps_that_are_named_are_standardised(standardise):
    latent, feature = (torch.tensor([1.0, 2.0, 3.0, 10.0]).view(4, 1, 1).expand(4, 2, 2) + shift for shift in (0, 5))
    calibration = calibrate(lambda t: (latent * t.view(4, 1, 1), feature * t.view(4, 1, 1)), torch.full((4,), 20),
                            torch.tensor([20, 80]), standardise, lambda latent, feature, t, c: latent.amax((1, 2)),
                            1.0)
    for name, maps in (("latent", latent), ("feature", feature)):
        lowest, highest = getattr(calibration, f"{name}_range").tolist()
        if name in standardise:
            assert highest == pytest.approx((10 - 2) / (1 + FLOOR))
        else:
            assert (lowest, highest) == (20 * maps.min(), 20 * maps.max())
    shown = calibration.standardised(20 * latent, 20 * feature, torch.full((4,), 20))
    for name, maps, found in zip(("latent", "feature"), (latent, feature), shown):
        assert torch.equal(found, 20 * maps) == (name not in standardise)
