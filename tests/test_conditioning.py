"""Algorithm 2 against scikit-learn, numpy and values by hand."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from d3ad import conditioning
from d3ad.conditioning import DynamicConditioning

TRAIN, TEST = torch.randn(69, 40, generator=torch.Generator().manual_seed(0)).split([60, 9])


def test_distances_agree_with_scikit_learn():
    theirs, _ = NearestNeighbors(n_neighbors=20, metric="l1").fit(TRAIN.numpy()).kneighbors(TEST.numpy())
    ours = DynamicConditioning().fit(TRAIN).distances(TEST)
    assert np.allclose(ours.numpy(), theirs.mean(1), rtol=1e-5)


def test_without_faiss_the_same_distances(monkeypatch):
    with_faiss = conditioning.knn_distances(TEST, TRAIN, 7)
    monkeypatch.setattr(conditioning, "faiss", None)
    assert torch.allclose(conditioning.knn_distances(TEST, TRAIN, 7), with_faiss, rtol=1e-5)


@pytest.mark.parametrize("with_faiss", [True, False])
def test_by_portions_and_from_a_file_the_same_distances(monkeypatch, tmp_path, with_faiss):
    whole = conditioning.knn_distances(TEST, TRAIN, 7)
    if not with_faiss:
        monkeypatch.setattr(conditioning, "faiss", None)
    monkeypatch.setattr(conditioning, "PORTION", 4 * TRAIN.shape[1] * 5)  # five rows, fewer than neighbours
    file = np.memmap(tmp_path / "reference", np.float32, "w+", shape=tuple(TRAIN.shape))
    file[:] = TRAIN.numpy()
    for reference in (TRAIN, file):
        assert torch.allclose(conditioning.knn_distances(TEST, reference, 7), whole, rtol=1e-6)


def test_the_self_neighbour():
    with_self, without = DynamicConditioning(k=3).fit(TRAIN), DynamicConditioning(k=3, include_self=False).fit(TRAIN)
    four, _ = NearestNeighbors(n_neighbors=4, metric="l1").fit(TRAIN.numpy()).kneighbors(TRAIN.numpy())
    assert np.allclose(with_self.train_distances, four[:, :3].mean(1), rtol=1e-4, atol=1e-4)  # one of the three is 0
    assert np.allclose(without.train_distances, four[:, 1:].mean(1), rtol=1e-4)
    assert (without.train_distances > with_self.train_distances).all()


@given(st.lists(st.floats(-2, 14), min_size=1, max_size=30))
def test_bins_are_the_authors_digitize(distances):
    edges = torch.linspace(0, 10, 11, dtype=torch.float64)
    expected = np.minimum(np.digitize(distances, edges.numpy(), right=True) - 1, 9) + 1
    assert conditioning.assign_bins(torch.tensor(distances, dtype=torch.float64), edges).tolist() == expected.tolist()


def test_steps_of_all_bins():
    """Bins 0-3 give 20; 4 -> 30; 5 -> 40; 6 -> 50; 7, 8 -> 60; 9 -> 70; 10 -> 80 (the authors' rounding)."""
    dic = DynamicConditioning()
    assert dic.steps(torch.arange(11)).tolist() == [20, 20, 20, 20, 30, 40, 50, 60, 60, 70, 80]
    assert dic.levels() == [20, 30, 40, 50, 60, 70, 80]


@given(b=st.integers(0, 10), t_max=st.integers(1, 1000), round_to=st.integers(1, 20))
def test_rounding_is_to_the_nearest_half_up(b, t_max, round_to):
    got = int(conditioning.step_of_bin(torch.tensor([b]), 10, t_max, 2, round_to))
    exact = max(b, 2) * t_max / 10
    assert got % round_to == 0 and abs(got - exact) <= round_to / 2 + 1e-9
    if abs(abs(got - exact) - round_to / 2) < 1e-9:
        assert got > exact


def test_a_far_image_gets_t_max_and_a_near_one_the_minimum():
    dic = DynamicConditioning(k=5).fit(TRAIN)
    assert dic.edges.shape == (11,) and torch.allclose(dic.edges.diff(), dic.edges.diff()[0].expand(10))
    assert dic.t_hat(TEST + 100).tolist() == [80] * 9
    assert dic.t_hat(TRAIN.mean(0, keepdim=True)).tolist() == [20]
    assert dic.bins(TRAIN.mean(0, keepdim=True)).tolist() == [0]


def test_order_of_images_does_not_matter():
    dic = DynamicConditioning(k=5).fit(TRAIN)
    shuffled = DynamicConditioning(k=5).fit(TRAIN.flip(0))
    assert torch.equal(dic.edges, shuffled.edges) and torch.equal(dic.t_hat(TEST), shuffled.t_hat(TEST.flip(0)).flip(0))


@pytest.mark.parametrize("kwargs", [dict(k=0), dict(num_bins=0), dict(t_max=0), dict(round_to=0), dict(min_bin=11),
                                    dict(min_bin=-1)])
def test_refuses_parameters_out_of_range(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        DynamicConditioning(**kwargs)


def test_refuses_too_few_or_broken_features():
    with pytest.raises(ValueError, match="k = 20"):
        DynamicConditioning().fit(TRAIN[:19])
    with pytest.raises(ValueError, match="finite"):
        DynamicConditioning(k=2).fit(torch.tensor([[0.0], [float("nan")], [1.0]]))


def test_pooling_to_16():
    x = torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).view(2, 3, 32, 32)
    pooled = conditioning.pool_features(x).view(2, 3, 16, 16)
    assert pooled[1, 2, 0, 0] == x[1, 2, :2, :2].mean()
    assert conditioning.pool_features(x[..., :8, :8]).shape == (2, 3 * 64)
