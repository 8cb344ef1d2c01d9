"""Counts in bins against the exact metrics, weights against images taken twice, and the seeds' spread by hand."""
import numpy as np
import pytest

from d3ad import metrics
from d3ad.study import resampling
from d3ad.study.outcome import AREAS


@pytest.fixture(scope="module")
def seen():
    """Thirty maps with defects of several sizes, ten good ones among them."""
    chance = np.random.default_rng(0)
    masks = np.zeros((30, 64, 64), dtype=bool)
    for i in range(10, 30):
        for size in chance.integers(2, 20, 2):
            y, x = chance.integers(0, 44, 2)
            masks[i, y:y + size, x:x + size] = True
    maps = chance.standard_normal(masks.shape) + 1.5 * masks
    return maps.max((1, 2)) + 0.5 * masks.any((1, 2)), masks.any((1, 2)).astype(int), maps, masks


def test_counts_give_the_exact_metrics_but_for_the_bins(seen):
    score, label, maps, masks = seen
    drawn = resampling.count(*seen).draws(np.ones((1, 30)), AREAS)
    assert drawn["i_auroc"][0] == pytest.approx(metrics.image_auroc(score, label), abs=1e-12)
    assert drawn["p_auroc"][0] == pytest.approx(metrics.pixel_auroc(maps, masks), abs=2e-4)
    for name, exact in metrics.pro_by_area(maps, masks, AREAS).items():
        assert drawn[name][0] == pytest.approx(exact, abs=5e-4), name


def test_a_weight_of_two_is_an_image_taken_twice(seen):
    score, label, maps, masks = seen
    weights = np.random.default_rng(1).integers(0, 3, 30)
    taken = np.repeat(np.arange(30), weights)
    drawn = resampling.count(*seen).draws(weights[None].astype(float))
    assert drawn["i_auroc"][0] == pytest.approx(metrics.image_auroc(score[taken], label[taken]), abs=1e-12)
    assert drawn["pro"][0] == pytest.approx(metrics.pro(maps[taken], masks[taken]), abs=1e-3)
    assert drawn["p_auroc"][0] == pytest.approx(metrics.pixel_auroc(maps[taken], masks[taken]), abs=1e-3)


def test_ties_are_shared():
    maps, masks = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), dtype=bool)
    masks[1, :2] = True
    drawn = resampling.count(np.zeros(2), np.array([0, 1]), maps, masks).draws(np.ones((1, 2)))
    assert drawn["i_auroc"][0] == drawn["p_auroc"][0] == 0.5
    assert drawn["pro"][0] == pytest.approx(metrics.pro(maps, masks))


def test_a_dataset_without_masks_and_sizes_without_a_region(seen):
    score, label, *_ = seen
    drawn = resampling.count(score, label).draws(np.ones((3, 30)), AREAS)
    assert np.isfinite(drawn["i_auroc"]).all() and np.isnan(drawn["pro"]).all() and np.isnan(drawn["pro_large"]).all()
    assert np.isnan(resampling.count(*seen).draws(np.ones((2, 30)), {"none": (0.9, 1.0)})["none"]).all()


def test_a_unit_weighs_the_same_wherever_it_stands():
    one, two = resampling.unit_weights(["a", "b", "a"], 50), resampling.unit_weights(["b"], 50)
    assert (one[:, 0] == one[:, 2]).all() and (one[:, 1] == two[:, 0]).all() and (one[:, 0] != one[:, 1]).all()
    assert resampling.unit_weights(["a"], 20_000).mean() == pytest.approx(1.0, abs=0.03)


def test_the_spread_of_seeds_is_that_of_their_mean():
    """Three seeds at 1, 2, 3 without any other noise: the standard error of the mean is 1 / sqrt(3)."""
    values = np.repeat([[1.0], [2.0], [3.0]], 20_001, 1)
    mean = resampling.over_seeds(values, "x")
    assert mean[0] == 2.0 and mean[1:].std() == pytest.approx(3 ** -0.5, abs=0.01)
    assert (resampling.over_seeds(values, "x") == mean).all() and (resampling.over_seeds(values[:1], "x") == 1).all()


def test_few_units_are_drawn_apart():
    """Of 15 units: sqrt(16 / 14) times Student's 2.145 over 1.960."""
    assert resampling.widened(np.array([1.0, 2.0, 0.0]), 15) == pytest.approx([1.0, 2.170, -0.170], abs=1e-3)
    assert resampling.widened(np.array([1.0, 2.0]), 1).tolist() == [1.0, 2.0]


def test_the_interval_covers_the_truth():
    """Of 200 samples, about 95 % of the intervals cover the AUROC that they were drawn from."""
    chance, label, truth, covered = np.random.default_rng(3), np.repeat([0, 1], 40), 0.7602, 0
    for trial in range(200):
        score = chance.standard_normal(80) + label
        drawn = resampling.count(score, label).draws(resampling.unit_weights([f"{trial}/{i}" for i in range(80)], 400))
        low, high = np.quantile(drawn["i_auroc"], (0.025, 0.975))
        covered += low <= truth <= high
    assert 180 <= covered <= 199
