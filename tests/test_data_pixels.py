"""Images and masks of any mode, depth and size become the same kind of tensors."""
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_datasets import SIZE

from d3ad import data

MODES = {"1": "png", "L": "png", "LA": "png", "P": "png", "I;16": "png",
         "RGB": "jpg", "RGBA": "png", "CMYK": "jpg"}


@settings(max_examples=60, deadline=None)
@given(mode=st.sampled_from(sorted(MODES)), width=st.integers(1, 40), height=st.integers(1, 40),
       size=st.integers(1, 50), seed=st.integers(0, 99))
def test_images_of_any_mode_and_size_are_in_range(mode, width, height, size, seed):
    generator = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(generator.integers(0, 65536, (height, width), np.uint16))
    else:
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    with TemporaryDirectory() as folder:
        path = Path(folder, f"image.{MODES[mode]}")
        image.save(path)
        loaded = data.load_image(path, size)
    assert loaded.shape == (3, size, size) and loaded.dtype == torch.float32 and loaded.is_contiguous()
    assert loaded.min() >= -1 and loaded.max() <= 1


@settings(max_examples=30, deadline=None)
@given(threshold=st.integers(0, 254), seed=st.integers(0, 99))
def test_masks_are_exact_at_their_own_size(threshold, seed):
    values = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE), np.uint8)
    with TemporaryDirectory() as folder:
        Image.fromarray(values).save(Path(folder, "mask.png"))
        mask = data.load_mask(Path(folder, "mask.png"), SIZE, threshold)
    assert torch.equal(mask, torch.from_numpy(values > threshold))


def test_a_mask_keeps_its_area_when_resized(tmp_path):
    values = np.zeros((SIZE, SIZE), np.uint8)
    values[:, :SIZE // 2] = 3
    Image.fromarray(values).save(tmp_path / "half.png")
    for size in (6, 12, 48):
        mask = data.load_mask(tmp_path / "half.png", size)
        assert mask[:, :size // 2].all() and not mask[:, size // 2:].any()


def test_black_and_white_are_the_ends_of_the_range_in_every_depth(tmp_path):
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        Image.fromarray(np.array([[0, white]], dtype)).save(tmp_path / "ends.png")
        assert data.load_image(tmp_path / "ends.png", 2)[:, 0].tolist() == [[-1, 1]] * 3


def test_16_bit_grey_keeps_its_precision(tmp_path):
    Image.fromarray(np.array([[30000, 30001]], np.uint16)).save(tmp_path / "deep.png")
    left, right = data.load_image(tmp_path / "deep.png", 2)[0, 0]
    assert right - left == pytest.approx(2 / 65535, rel=0.01)


def test_transparent_pixels_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (data.load_image(tmp_path / "clear.png", 4) == 1).all()


def test_rotated_photograph_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    photograph = np.zeros((2, 2, 3), np.uint8)
    photograph[0, 0] = 255
    Image.fromarray(photograph).save(tmp_path / "rotated.png", exif=exif)
    assert data.load_image(tmp_path / "rotated.png", 2)[0].tolist() == [[-1, 1], [-1, -1]]


@pytest.mark.parametrize("mode, value", [("1", 1), ("L", 1), ("P", 1), ("RGB", (0, 0, 9)),
                                         ("RGBA", (9, 0, 0, 255))])
def test_masks_of_any_mode(tmp_path, mode, value):
    mask = Image.new(mode, (4, 4), (0, 0, 0, 255) if mode == "RGBA" else 0)
    mask.putpixel((1, 2), value)
    mask.save(tmp_path / "mask.png")
    assert data.load_mask(tmp_path / "mask.png", 4).nonzero().tolist() == [[2, 1]]
