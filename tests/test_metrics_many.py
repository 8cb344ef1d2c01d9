"""Random cases of each metric (10,000 with --long) against brute force; and the edges where a number could lie."""
import numpy as np
import pytest
from scipy import ndimage

from d3ad.app import evaluating
from d3ad.metrics import image_auroc, pixel_auroc, pro, pro_200, pro_by_area


def random_case(rng):
    """Two maps of 6 x 6 with 2 to 40 different values, and masks with something in them: ties and touching regions
    abound.
    """
    maps = rng.integers(0, rng.choice([2, 3, 10, 40]), (2, 6, 6)) / 7
    masks = rng.random((2, 6, 6)) < rng.choice([0.03, 0.2, 0.5, 0.97])
    masks.flat[rng.permutation(72)[:2]] = True, False
    return maps, masks


def by_pairs(scores, labels) -> float:
    """AUROC as what it means: how often an anomalous one scores above a normal one, a tie counting half."""
    higher = np.sign(scores[labels][:, None] - scores[~labels][None, :])
    return float((higher + 1).mean() / 2)


def by_thresholds(maps, masks, limit) -> float:
    """PRO as it is defined: at each threshold, the mean share of each region that is found and the share of normal
    pixels.
    """
    regions = [(i, number == r) for i, mask in enumerate(masks)
               for number, count in [ndimage.label(mask, np.ones((3, 3)))] for r in range(1, count + 1)]
    found = maps[None] >= np.unique(maps)[::-1, None, None, None]                     # (thresholds, N, H, W)
    fpr = np.append(0, found[:, ~masks].mean(1))
    overlap = np.append(0, np.mean([found[:, i][:, region].mean(1) for i, region in regions], axis=0))
    past = int(np.searchsorted(fpr, limit, side="right"))                             # the first point beyond the limit
    x, y = np.append(fpr[:past], limit), overlap[:past]
    if past < len(fpr):
        share = (limit - fpr[past - 1]) / (fpr[past] - fpr[past - 1])
        y = np.append(y, overlap[past - 1] + share * (overlap[past] - overlap[past - 1]))
    else:
        y = np.append(y, overlap[-1])
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / limit)


def test_random_cases_are_brute_force(long):
    rng = np.random.default_rng(0)
    for case in range(10_000 if long else 800):
        maps, masks = random_case(rng)
        limit = rng.choice([0.05, 0.3, 1.0])
        assert abs(pro(maps, masks, limit) - by_thresholds(maps, masks, limit)) < 1e-9, case
        expected = by_pairs(maps.ravel(), masks.ravel())
        assert abs(pixel_auroc(maps, masks) - expected) < 1e-9, case
        scores, labels = maps.ravel()[:24], masks.ravel()[:24]
        if 0 < labels.sum() < 24:
            assert abs(image_auroc(scores, labels) - by_pairs(scores, labels)) < 1e-9, case


NORMAL = np.zeros((1, 4, 4), bool)
ONE_PIXEL = NORMAL.copy()
ONE_PIXEL[0, 1, 2] = True


def test_maps_that_say_nothing_get_what_chance_gets():
    """All ties: one step from (0, 0) to (1, 1), so AUROC is 1/2 and PRO up to 0.3 is 0.3 / 2."""
    for value in (0.0, 1.0, -5.0, 1e30):
        constant = np.full((1, 4, 4), value)
        assert pixel_auroc(constant, ONE_PIXEL) == image_auroc(constant, ONE_PIXEL) == 0.5
        assert pro(constant, ONE_PIXEL) == pytest.approx(0.15) and pro(constant, ONE_PIXEL,
                                                                       fpr_limit=1.0) == pytest.approx(0.5)
        assert pro_200(constant, ONE_PIXEL) == 0.0  # the version in common use has nothing to integrate there


def test_a_single_pixel_is_a_region():
    assert pro(ONE_PIXEL * 1.0, ONE_PIXEL) == pixel_auroc(ONE_PIXEL * 1.0, ONE_PIXEL) == 1.0
    assert pro(-1.0 * ONE_PIXEL, ONE_PIXEL) == pixel_auroc(-1.0 * ONE_PIXEL, ONE_PIXEL) == 0.0


def test_an_image_that_is_anomalous_all_over_is_one_region():
    masks = np.stack([np.ones((4, 4), bool), NORMAL[0]])
    assert pro(masks * 1.0, masks) == 1.0
    half = masks * 1.0
    half[0, :2] = 0  # a tie with every normal pixel
    assert pro(half, masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_images_without_a_region_count_as_normal_pixels_only():
    """A good image, or an anomalous one whose mask is empty, adds false positives and no region."""
    maps = np.stack([ONE_PIXEL[0] * 1.0, NORMAL[0] * 0.0])
    masks = np.stack([ONE_PIXEL[0], NORMAL[0]])
    assert pro(maps, masks) == 1.0
    maps[1, :2] = 2.0  # half of the good image is found first: 8 of 31 normal pixels, below the limit of 0.3
    assert pro(maps, masks) == pytest.approx((0.3 - 8 / 31) / 0.3)


def test_a_size_without_a_region_has_no_number():
    assert pro_by_area(ONE_PIXEL * 1.0, ONE_PIXEL, dict(small=(0, 0.1), large=(0.1, 1))) == dict(small=1.0, large=None)


def test_scores_of_any_type_and_scale_rank_alike():
    rng = np.random.default_rng(1)
    maps, masks = random_case(rng)
    for same in (maps.astype(np.float32), (maps * 7).astype(np.int64), maps * 1e-300, maps * 1e300, -1 / (1 + maps)):
        assert pro(same, masks) == pytest.approx(pro(maps, masks))
        assert pixel_auroc(same, masks) == pytest.approx(pixel_auroc(maps, masks))


def test_metrics_by_portions_are_those_of_all_at_once():
    generator = np.random.default_rng(0)
    for levels in (3, 40, 10_000):
        maps = generator.integers(0, levels, (9, 12, 12)).astype(np.float32) / 7
        masks = generator.random((9, 12, 12)) < 0.1
        areas = {"small": (0.0, 0.01), "none": (0.9, 1.0)}
        found = evaluating.pixel_metrics(lambda: zip(np.split(maps, 3), np.split(masks, 3)), areas)
        expected = dict(p_auroc=pixel_auroc(maps, masks),
                        **pro_by_area(maps, masks, {"pro": (0.0, 1.0)} | areas),
                        pro_200=pro_200(maps, masks))
        assert found == pytest.approx(expected, abs=1e-12)
