"""The networks of reverse distillation for a backbone of any widths; for a ResNet-18's they are RD4AD's own."""
import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Residual(nn.Module):
    """A ResNet's basic block; `scale` 2 halves the map, 0.5 doubles it by a transposed convolution.

    signed: without the ReLU at its end.
    """

    def __init__(self, channels: int, wider: int, scale: float = 1, signed: bool = False):
        super().__init__()
        self.signed = signed
        self.body = nn.Sequential(_resized(channels, wider, scale, 3), nn.BatchNorm2d(wider), nn.ReLU(),
                                  nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider))
        same = channels == wider and scale == 1
        self.skip = nn.Identity() if same else nn.Sequential(_resized(channels, wider, scale, 1),
                                                             nn.BatchNorm2d(wider))

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x) + self.skip(x)
        return found if self.signed else F.relu(found)


def _resized(channels: int, wider: int, scale: float, kernel: int) -> nn.Module:
    if scale == 0.5:
        return nn.ConvTranspose2d(channels, wider, 2, 2, bias=False)
    return nn.Conv2d(channels, wider, kernel, int(scale), kernel // 2, bias=False)


def _halving(channels: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU())


class Bottleneck(nn.Module):
    """Three blocks (B, widths[i], H / 2^i, W / 2^i) brought to the last one's size and pressed into one code (B, 2
    widths[2], H / 8, W / 8).
    """

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        first, second, third = widths
        self.first = nn.Sequential(_halving(first, second), _halving(second, third))
        self.second = _halving(second, third)
        self.code = nn.Sequential(Residual(3 * third, 2 * third, 2), Residual(2 * third, 2 * third))

    def forward(self, blocks: list[Tensor]) -> Tensor:
        return self.code(torch.cat([self.first(blocks[0]), self.second(blocks[1]), blocks[2]], 1))


class Decoder(nn.Module):
    """The encoder mirrored: a code (B, 2 widths[2], h, w) to three blocks as the encoder gives them.

    signed: the encoder's blocks have values below 0, as EfficientNet's, which end without a ReLU; so these do, too.
    """

    def __init__(self, widths: tuple[int, int, int], signed: bool = False):
        super().__init__()
        channels = [2 * widths[2], *reversed(widths)]
        self.stages = nn.ModuleList(nn.Sequential(Residual(a, b, 0.5), Residual(b, b, signed=signed))
                                    for a, b in itertools.pairwise(channels))

    def forward(self, code: Tensor) -> list[Tensor]:
        blocks = []
        for stage in self.stages:
            code = stage(code)
            blocks.insert(0, code)
        return blocks


def initialise(model: nn.Module) -> nn.Module:
    """Kaiming's weights for convolutions, as a ResNet starts; RD4AD leaves the transposed ones as PyTorch has them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
