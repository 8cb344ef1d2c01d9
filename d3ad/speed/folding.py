"""EfficientNet's batch normalisations folded into the convolutions before them: half the time on a CPU.

A trained normalisation multiplies each channel and adds to it, so convolution and normalisation are one convolution
with other weights.  That saves two passes over memory a layer, where the convolutions themselves are small.  Numbers
are the same but for rounding.  For prediction only: the statistics are those of the training.
"""
import copy
from itertools import pairwise

import torch
import torch.nn as nn

from d3ad.features import FeatureExtractor
from d3ad.infra.backbones import timm
from d3ad.speed.exchange import exchanged


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """One convolution for a convolution and the normalisation of its output; with weights of its own."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias - norm.running_mean * scale
    both = copy.deepcopy(conv)  # some pad in their own way
    both.weight = nn.Parameter((conv.weight * scale.view(-1, 1, 1, 1)).detach(), requires_grad=False)
    both.bias = nn.Parameter((bias if conv.bias is None else bias + conv.bias * scale).detach(), requires_grad=False)
    return both


def with_folded_norms(backbone: FeatureExtractor) -> FeatureExtractor:
    """The same feature extractor with folded normalisations, where it is an EfficientNet; any other unchanged."""
    if not isinstance(backbone.net, timm.models.EfficientNetFeatures):
        return backbone
    other = exchanged(backbone, lambda layer: None)  # a copy that shares its parameters
    for part in other.net.modules():
        layers = list(part.named_children())  # timm lists a block's layers in the order in which it calls them
        for (name, conv), (norm_name, norm) in pairwise(layers):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, timm.layers.BatchNormAct2d):
                setattr(part, name, folded(conv, norm))
                setattr(part, norm_name, norm.act)
    return other.to(memory_format=torch.channels_last)
