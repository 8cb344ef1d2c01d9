"""AUROC and PRO against brute force and against values by hand."""
import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from d3ad.metrics import image_auroc, pixel_auroc, pro, pro_200


def brute_force_auroc(scores, labels):
    pairs = [(s > n) + 0.5 * (s == n) for s in scores[labels] for n in scores[~labels]]
    return float(np.mean(pairs))


def brute_force_pro(maps, masks, limit):
    """Every threshold one by one, every region one by one."""
    regions = []
    for i, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(i, labelled == r) for r in range(1, count + 1)]
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        fpr.append(found[~masks].mean())
        overlap.append(np.mean([found[i][region].mean() for i, region in regions]))
    area = 0.0
    for (f0, f1), (o0, o1) in zip(itertools.pairwise(fpr), itertools.pairwise(overlap)):
        if f0 >= limit:
            break
        if f1 > limit:
            f1, o1 = limit, o0 + (o1 - o0) * (limit - f0) / (f1 - f0)
        area += (f1 - f0) * (o0 + o1) / 2
    return area / limit


cases = st.tuples(hnp.arrays(np.int64, (2, 5, 6), elements=st.integers(0, 8)), hnp.arrays(np.bool_, (2, 5, 6)))


@settings(max_examples=60, deadline=None)
@given(cases, st.floats(0.05, 1.0))
def test_pro_is_brute_force(case, limit):
    maps, masks = case
    assume(masks.any() and not masks.all())
    assert pro(maps / 8, masks, limit) == pytest.approx(brute_force_pro(maps / 8, masks, limit), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_auroc_is_brute_force(case):
    maps, masks = case
    assume(masks.any() and not masks.all())
    assert pixel_auroc(maps, masks) == pytest.approx(brute_force_auroc(maps.ravel(), masks.ravel()), abs=1e-9)
    assert image_auroc(maps.ravel(), masks.ravel()) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()),
                                                                     abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(cases)
def test_monotone_changes_change_nothing(case):
    maps, masks = case
    assume(masks.any() and not masks.all())
    assert pro(np.exp(maps / 2), masks) == pytest.approx(pro(maps, masks), abs=1e-9)


def test_pro_by_hand():
    """One region of 2 pixels, 8 normal ones; the region's halves come before and after one false positive."""
    maps = np.array([[[9, 8, 7, 0, 0], [0, 0, 0, 0, 0]]]) / 9
    masks = np.array([[[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]])
    # (0, 0.5) -> (1/8, 0.5) -> (1/8, 1) -> (1, 1): up to 0.3 the area is 0.5/8 + (0.3 - 1/8)
    assert pro(maps, masks) == pytest.approx((0.5 / 8 + 0.3 - 1 / 8) / 0.3)


def test_small_and_large_regions_count_the_same():
    maps, masks = np.zeros((1, 40, 40)), np.zeros((1, 40, 40), dtype=bool)
    masks[0, :20, :20] = True
    masks[0, 30, 30] = True
    maps[0, 30, 30] = 1.0  # only the small one is found; all the rest is one tie
    assert pro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2, abs=1e-6)


def test_diagonal_neighbours_are_one_region():
    maps, masks = np.zeros((1, 4, 4)), np.zeros((1, 4, 4), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = True
    maps[0, 0, 0] = 1
    # half of one region first, then a tie of all the rest
    assert pro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_the_200_threshold_version_moves_under_monotone_changes_the_exact_does_not():
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 64, 64), dtype=bool)
    masks[:2, 20:40, 20:40] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    exact, stretched = pro(maps, masks), pro(np.exp(2 * maps), masks)
    assert exact == pytest.approx(stretched, abs=1e-12)
    assert abs(pro_200(maps, masks) - pro_200(np.exp(2 * maps), masks)) > 0.05
    assert pro_200(maps, masks) == pytest.approx(exact, abs=0.05)


def test_regions_of_one_size_only():
    maps, masks = np.zeros((1, 40, 40)), np.zeros((1, 40, 40), dtype=bool)
    masks[0, :20, :20] = True    # a quarter of the image, not found
    masks[0, 30, 30] = True      # 1 / 1600, found
    maps[0, 30, 30] = 1.0
    assert pro(maps, masks, area=(0, 0.01)) == pytest.approx(1.0)
    # a tie with all normal pixels: up to 0.3, half of it
    assert pro(maps, masks, area=(0.01, 1)) == pytest.approx(0.15, abs=1e-3)
    both = [pro(maps, masks, area=area) for area in ((0, 0.01), (0.01, 1))]
    assert pro(maps, masks) == pytest.approx(np.mean(both), abs=1e-3)
    with pytest.raises(ValueError, match="no region"):
        pro(maps, masks, area=(0.5, 1))


def test_torch_and_numpy_agree_and_perfect_is_one():
    masks = torch.zeros(2, 8, 8)
    masks[0, 2:4, 2:4] = 1
    assert pro(masks, masks) == pixel_auroc(masks, masks) == pro(masks.numpy(), masks.numpy()) == 1.0
    assert image_auroc(torch.tensor([0.1, 0.9]), torch.tensor([0, 1])) == 1.0


def test_tensors_of_bfloat16_are_measured():
    masks = torch.zeros(2, 8, 8)
    masks[0, 2:4, 2:6] = 1
    maps = (torch.arange(128.0).view(2, 8, 8) % 50 / 64 + masks / 4).bfloat16()  # exact in seven bits
    for metric in (pro, pro_200, pixel_auroc, image_auroc):
        assert metric(maps, masks.bfloat16()) == metric(maps.float(), masks) < 1


def test_pro_refuses_a_limit_outside_its_range():
    for limit in (0, -1, 1.1):
        with pytest.raises(ValueError, match="fpr_limit"):
            pro(np.zeros((1, 2, 2)), np.array([[[0, 1], [0, 0]]]), limit)
