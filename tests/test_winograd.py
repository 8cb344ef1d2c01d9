"""Winograd's way gives what the usual convolution gives, and is taken only where it was made for."""
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from d3ad.speed import winograd
from d3ad.speed.winograd import WinogradConv2d, matrices, pays


def conv(inputs: int, outputs: int, seed: int = 0, **settings) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1} | settings).requires_grad_(False)


def exact(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)


def test_six_products_are_a_correlation_of_six_inputs_with_three_weights():
    a, g, b = matrices()
    d, weights = torch.tensor([1.0, -2, 3, 5, 0, 4]).double(), torch.tensor([2.0, 1, -1]).double()
    by_hand = torch.tensor([1 * 2 - 2 - 3, -2 * 2 + 3 - 5, 3 * 2 + 5 - 0, 5 * 2 + 0 - 4]).double()
    torch.testing.assert_close(a @ ((g @ weights) * (b @ d)), by_hand)


@pytest.mark.parametrize("count, height, width, strip",
                         [(1, 16, 16, 96), (3, 16, 32, 96), (2, 40, 24, 5), (1, 64, 16, 1)])
def test_a_convolution_is_the_same(monkeypatch, count, height, width, strip):
    monkeypatch.setattr(winograd, "STRIP", strip)
    layer = conv(7, 5)
    x = torch.randn(count, 7, height, width, generator=torch.Generator().manual_seed(1))
    found = WinogradConv2d(layer)(x)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), exact(layer, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [8, 20])
def test_a_doubling_before_it_is_part_of_it(size):
    layer = conv(6, 4)
    x = torch.randn(2, 6, size, size, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    found = WinogradConv2d(layer, doubled=True)(x)
    torch.testing.assert_close(found.double(), exact(layer, F.interpolate(x, scale_factor=2.0)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 4, 18, 20), (1, 4, 17, 32)])
def test_images_that_tiles_do_not_cover_take_the_usual_way(shape):
    layer, x = conv(4, 4), torch.randn(shape)
    found = WinogradConv2d(layer)
    assert torch.equal(found(x), layer(x)) and "weights" not in vars(found)


def test_a_doubling_to_a_given_size_takes_the_usual_way():
    layer, x = conv(4, 4), torch.randn(1, 4, 16, 16)
    assert torch.equal(WinogradConv2d(layer, doubled=True)(x, (31, 31)), layer(F.interpolate(x, size=(31, 31))))


def test_an_image_is_the_same_alone_and_in_a_batch():
    layer, x = WinogradConv2d(conv(16, 16)), torch.randn(30, 16, 16, 16)
    torch.testing.assert_close(torch.cat([layer(image) for image in x.split(1)]), layer(x), atol=1e-6, rtol=0)


def test_it_pays_for_large_plain_convolutions_only():
    assert pays(conv(128, 128))
    others = (conv(64, 128), conv(1024, 512), conv(128, 128, stride=2), conv(128, 128, padding=0),
              conv(128, 128, groups=2), conv(128, 128, bias=False), nn.Conv2d(128, 128, 1), nn.Linear(128, 128))
    assert not any(map(pays, others))
