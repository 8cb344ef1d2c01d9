"""Which pictures are shown: by hand, on masks of a few pixels."""
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from d3ad.study import selection

AREAS = (3, 0, 1, 4, 2)  # pixels of a defect in each image
MASKS = torch.arange(9).view(1, 3, 3) < torch.tensor(AREAS).view(-1, 1, 1)


def test_images_are_ordered_by_the_area_of_their_defect():
    assert selection.by_area(MASKS) == [2, 4, 0, 3]  # image 1 has none
    assert [selection.at_share(MASKS, share) for share in (0, 0.34, 0.66, 1)] == [2, 4, 0, 3]
    assert selection.at_share(MASKS[:1], 0.5) == 0


def test_what_no_image_can_be_chosen_from():
    with pytest.raises(ValueError, match="share must lie"):
        selection.at_share(MASKS, 1.1)
    with pytest.raises(ValueError, match="no mask"):
        selection.at_share(MASKS[1:2], 0.5)


def test_runs_of_a_dataset_or_all():
    runs = [SimpleNamespace(name=name) for name in ("visa", "btad", "visa")]
    assert selection.of_datasets(runs, "visa") == [runs[0], runs[2]]
    assert selection.of_datasets(runs, "mvtec") == runs


def test_overlap_by_hand():
    above = torch.arange(9).view(1, 3, 3).ge(2).expand(5, 3, 3)  # 7 pixels of each image; 1 + 2 of them in a defect
    assert selection.overlap(above, MASKS) == pytest.approx(dict(covered=100 * 3 / 10, precision=100 * 3 / 35))
    assert selection.overlap(torch.zeros_like(MASKS), MASKS) == dict(covered=0, precision=0)
    assert selection.overlap(MASKS, MASKS) == dict(covered=100, precision=100)
    with pytest.raises(ValueError, match="no mask"):
        selection.overlap(above[:1], MASKS[1:2])


def test_where_a_reconstruction_fails():
    change = torch.tensor([[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]])
    mask = torch.tensor([[False, True, False], [False, False, False]])
    assert selection.failure(change, mask, 4.9) == (1, 2) and selection.failure(change, mask, 5.0) is None


def test_images_of_every_kind():
    masks = torch.zeros(5, 4, 4, dtype=torch.bool)
    for i, size in enumerate((0, 3, 1, 4, 2)):
        masks[i, :size, 0] = True
    t_hat = torch.tensor([20, 20, 80, 80, 60])
    assert selection.by_severity(masks, t_hat) == {"largest": 3, "middle": 1, "smallest": 2}
    assert selection.by_severity(masks, torch.tensor([20, 80, 80, 80, 20]))["lowest T-hat"] == 4
    with pytest.raises(ValueError, match="no mask"):
        selection.by_severity(masks[:1], t_hat[:1])


def test_the_hardest_images():
    labels = torch.tensor([1, 0, 1, 1, 0])
    masks = MASKS & (labels == 1).view(-1, 1, 1)
    assert selection.hardest(torch.tensor([2.0, 3.0, 1.0, 0.5, 4.0]), labels, masks) == (3, 4)
    with pytest.raises(ValueError, match="takes a defect and a good part"):
        selection.hardest(torch.ones(5), torch.ones(5), masks)


@pytest.mark.parametrize("pro, expected", [
    ({"DDAD-like": 50, "SPADE": 90, "DRAEM": 40}, ["DRAEM", "DDAD-like"]),  # as in the paper
    ({"SPADE": 70, "DDAD-like": 50, "PaDiM": 90}, ["DDAD-like", "PaDiM"]),
    (dict(SPADE=70, PaDiM=90, PatchCore=80), ["PaDiM", "PatchCore"]),
    (dict(SPADE=70), ["SPADE"]),
    (dict(), ["DRAEM", "DDAD-like"])])                             # nothing measured: panels that say so
def test_who_stands_beside_d3ad(pro, expected):
    assert selection.beside(pd.Series(pro, dtype=float)) == expected
