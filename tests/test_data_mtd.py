"""The magnetic tiles: both splits, tiles kept whole, and masks that are empty as published."""
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_datasets import SIZE, assert_sound, counts, draw, draw_mask, draw_tiles

from d3ad import data
from d3ad.data import mtd
from d3ad.data.base import Sample


def test_tiles_random_split(tmp_path):
    draw_tiles(tmp_path / "Magnetic-tile-defect-datasets.-master")
    dataset = data.load("mtd", tmp_path, seed=1)
    assert_sound(dataset)
    assert counts(dataset) == (29, 7, 5)
    assert dataset.category == "tiles" and dataset.mask_threshold == 127
    assert dataset == data.load("mtd", tmp_path, "tiles", split="random", seed=1)
    assert dataset.train != data.load("mtd", tmp_path, seed=2).train
    assert "mtd/tiles: 36 MT_Free images, 952 published" in dataset.notes


def test_tiles_with_an_empty_mask_stay_anomalous(tmp_path):
    draw_tiles(tmp_path)
    draw(tmp_path / f"MT_Uneven/Imgs/{mtd.EMPTY_MASKS[0]}.jpg", "L")
    draw_mask(tmp_path / f"MT_Uneven/Imgs/{mtd.EMPTY_MASKS[0]}.png", 0)
    dataset = data.load("mtd", tmp_path)
    row = [sample.image.stem for sample in dataset.test].index(mtd.EMPTY_MASKS[0])
    assert dataset.labels("test")[row] == 1 and not dataset.masks("test", SIZE)[row].any()
    assert mtd.EMPTY_MASKS[0] in dataset.notes[-1] and dataset.check() == []


def test_tiles_are_grouped_by_gaps_of_at_most_50():
    samples = [Sample(Path(f"exp1_num_{number}.jpg"), 0, None, "good") for number in (300, 0, 50, 101, 90)]
    groups = [[sample.image.stem for sample in group] for group in mtd.tiles(samples, [])]
    assert groups == [["exp1_num_0", "exp1_num_50", "exp1_num_90", "exp1_num_101"], ["exp1_num_300"]]


@settings(max_examples=50, deadline=None)
@given(numbers=st.lists(st.tuples(st.integers(0, 3000), st.booleans()), min_size=1, unique_by=lambda n: n[0]),
       seed=st.integers(0, 9))
def test_split_by_tile_never_shares_a_tile(numbers, seed):
    samples = [Sample(Path(f"exp1_num_{n}.jpg"), int(bad), None, "") for n, bad in numbers]
    normal, anomalous = ([sample for sample in samples if sample.label == label] for label in (0, 1))
    train, held = mtd._split_by_tile(normal, anomalous, seed, [])
    assert sorted(train + held, key=normal.index) == normal
    assert len(held) >= round(0.2 * len(normal))
    for group in mtd.tiles(samples, []):
        assert not (set(group) & set(train) and set(group) & set(held + anomalous))


def test_split_by_tile_from_disk(tmp_path):
    draw_tiles(tmp_path / "mtd")
    dataset = data.load("mtd", tmp_path, split="by_tile")
    assert_sound(dataset)
    train, normal, _ = counts(dataset)
    assert train + normal == 36 and 7 <= normal <= 9
    assert {"exp1_num_0", "exp2_num_20"} <= {sample.image.stem for sample in dataset.test}  # the crack's tile
    draw(tmp_path / "mtd/MT_Free/Imgs/copy.jpg", "L")
    with pytest.raises(data.DataError, match=r"copy\.jpg: not named exp<N>_num_<id>"):
        data.load("mtd", tmp_path, split="by_tile")


@pytest.mark.skipif("D3AD_MTD" not in os.environ, reason="D3AD_MTD does not point to the magnetic tiles")
def test_the_published_magnetic_tiles():
    random = data.load("mtd", os.environ["D3AD_MTD"])
    by_tile = data.load("mtd", os.environ["D3AD_MTD"], split="by_tile")
    assert counts(random) == (762, 190, 392)
    assert sum(counts(by_tile)) == 1344 and 190 <= counts(by_tile)[1] <= 206
    assert len(random.notes) == 4 and all("empty as published" in note for note in random.notes)
    assert random.check() == []
