"""A dataset's fingerprint and the order of its files."""
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tiny_datasets import draw, draw_tiles

from d3ad import data
from d3ad.data.layouts import natural


def test_fingerprint_follows_content_and_split_but_not_place(tmp_path):
    first = data.load("mtd", draw_tiles(tmp_path / "a"))
    second = data.load("mtd", draw_tiles(tmp_path / "b"))
    assert first.fingerprint() == second.fingerprint() and len(first.fingerprint()) == 16
    assert int(first.fingerprint(), 16) >= 0
    assert first.fingerprint() != data.load("mtd", tmp_path / "a", seed=1).fingerprint()
    moved = replace(first, train=first.train[:-1], test=first.train[-1:] + first.test)
    assert first.fingerprint() != moved.fingerprint()
    draw(second.train[0].image, "L", seed=77)
    assert first.fingerprint() != second.fingerprint()


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_files_are_in_natural_order(numbers):
    paths = [Path(f"image{number}.png") for number in numbers]
    assert sorted(paths, key=natural) == [Path(f"image{number}.png") for number in sorted(numbers)]
