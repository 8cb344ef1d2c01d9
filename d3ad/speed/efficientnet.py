"""EfficientNet's layers for a CPU, in less than half the time, where moving memory takes longer than multiplying.

A trained batch normalisation multiplies each channel and adds to it, so it is folded into the convolution before it.
And what halves a map pads it by itself, where timm writes a padded copy first (TensorFlow's "same": more at the end
than at the beginning, which PyTorch's convolutions can't).  Numbers are the same but for rounding.  For prediction
only: the statistics are those of the training.
"""
import copy
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.features import FeatureExtractor
from d3ad.infra.backbones import timm
from d3ad.speed.exchange import exchanged


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution for a convolution and the normalisation of its output, with weights of its own."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias - norm.running_mean * scale
    both = copy.deepcopy(conv)  # some pad in their own way
    both.weight = nn.Parameter((conv.weight * scale.view(-1, 1, 1, 1)).detach(), requires_grad=False)
    both.bias = nn.Parameter((bias if conv.bias is None else bias + conv.bias * scale).detach(), requires_grad=False)
    return both


class Halving(nn.Module):
    """timm's `Conv2dSame` of stride 2, with a row and a column of zeros before its kernel: equal padding on both sides
    then does the same.  Maps of odd size go through the layer itself.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv, self.padding = conv, conv.kernel_size[0] // 2
        self.weight = nn.Parameter(F.pad(conv.weight, (1, 0, 1, 0)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) to (N, C', ceil(H / 2), ceil(W / 2))."""
        if x.shape[-2] % 2 or x.shape[-1] % 2:
            return self.conv(x)
        return F.conv2d(x, self.weight, self.conv.bias, 2, self.padding, groups=self.conv.groups)


def halves(conv: nn.Conv2d) -> bool:
    """Whether `Halving` can take this layer's place."""
    return (isinstance(conv, timm.layers.Conv2dSame) and conv.stride == (2, 2) and conv.dilation == (1, 1)
            and conv.kernel_size in ((3, 3), (5, 5)))


def with_fast_layers(backbone: FeatureExtractor) -> FeatureExtractor:
    """The same feature extractor with these layers, where it is an EfficientNet; any other unchanged."""
    if not isinstance(backbone.net, timm.models.EfficientNetFeatures):
        return backbone
    other = exchanged(backbone, lambda layer: None)  # a copy that shares its parameters
    for part in other.net.modules():
        layers = list(part.named_children())  # timm lists a block's layers in the order in which it calls them
        for (name, conv), (norm_name, norm) in pairwise(layers):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, timm.layers.BatchNormAct2d):
                conv = folded(conv, norm)
                setattr(part, name, Halving(conv) if halves(conv) else conv)
                setattr(part, norm_name, norm.act)
    return other.to(memory_format=torch.channels_last)
