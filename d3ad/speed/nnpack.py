"""The tiny autoencoder on a CPU: its 3 x 3 convolutions through NNPACK, a library that comes with PyTorch.

NNPACK takes Winograd's way (d3ad/speed/winograd.py) with larger tiles, F(6 x 6, 3 x 3): 64 multiplications for 36
outputs, where the usual way takes 324.  Its maps around the multiplications are written for the processor, so it pays
for 64 channels, too, where maps made of PyTorch's operations cost what they save.  Rounding is ten times as large,
1e-5 of the largest value: for a preset that trades.
(Dukhan: https://github.com/Maratyszcza/NNPACK.)
"""
from functools import cached_property

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.infra.torchvision_shim import make_torchvision_importable
from d3ad.speed.exchange import exchanged

make_torchvision_importable()
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock  # noqa: E402

TILE, POINTS = 6, 8       # outputs of a tile and points of its polynomial, in each direction
LEAST_CHANNELS = 16       # below, the usual way is faster


def available() -> bool:
    """Whether this PyTorch has NNPACK for this processor; asking starts it, which its first use needs."""
    return torch._nnpack_available()


def pays() -> bool:
    """Whether NNPACK is there and faster than PyTorch's own convolutions.

    It is written for vectors of 256 bits, PyTorch's use those of 512 where the processor has them.
    """
    return available() and torch.backends.cpu.get_cpu_capability() != "AVX512"


class NnpackConv2d(nn.Module):
    """An `nn.Conv2d` of 3 x 3, stride 1 and padding 1, through NNPACK, one image at a time.

    It shares the layer's parameters; for prediction only, since no gradient passes.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    @cached_property
    def weight(self) -> Tensor:
        """The layer's weights in the memory order that NNPACK wants."""
        return self.conv.weight.detach().contiguous()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) to (N, C', H, W), both contiguous."""
        images = [torch._nnpack_spatial_convolution(image, self.weight, self.conv.bias, [1, 1], [1, 1])
                  for image in x.contiguous().split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)


class TinyBlock(nn.Module):
    """An `AutoencoderTinyBlock` that writes over what it no longer needs."""

    def __init__(self, block: AutoencoderTinyBlock):
        super().__init__()
        self.conv, self.skip = exchanged(block.conv, _exchange), block.skip

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) to (N, C', H, W)."""
        return self.conv(x).add_(self.skip(x)).relu_()


def multiplied(input_shape: tuple[int, ...], weight_shape: tuple[int, ...], *_, **__) -> int:
    """Floating point operations of the multiplications that NNPACK does: 2 x 64 per tile, input and output channel."""
    count, channels, height, width = input_shape
    tiles = -(-height // TILE) * -(-width // TILE)
    return 2 * count * tiles * POINTS ** 2 * channels * weight_shape[0]


def fits(layer: nn.Module) -> bool:
    """Whether NNPACK computes this layer, and has enough channels to be fast."""
    return (isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.stride == (1, 1)
            and layer.padding == (1, 1) and layer.padding_mode == "zeros" and layer.dilation == (1, 1)
            and layer.groups == 1 and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS)


def with_nnpack(network: nn.Module) -> nn.Module:
    """The same tiny autoencoder and parameters, through NNPACK where it `fits`; unchanged where that doesn't pay."""
    return exchanged(network, _exchange) if pays() else network


def _exchange(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, AutoencoderTinyBlock):
        return TinyBlock(layer)
    return NnpackConv2d(layer) if fits(layer) else None
