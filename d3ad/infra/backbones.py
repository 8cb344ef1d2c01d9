"""timm's networks as feature extractors: from its hub, out of a pip package, from a file, or at random."""
import re

import torch.nn as nn
from safetensors import SafetensorError

from d3ad.infra import pip_weights
from d3ad.infra.checkpoint import weights_file
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
import timm  # noqa: E402  after torchvision can be imported


def load(name: str, weights: str, blocks: tuple[int, ...]) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """A network that gives these blocks, and mean and standard deviation of its input, for images in [0, 1].

    weights: "hub", "pip", "none", or a file or folder.  Raises FileNotFoundError, saying which file to put where, where
    weights can't be had; ValueError for an unknown name, or for weights of another network.
    """
    # "hf-hub:..." and "local-dir:..." would make timm fetch or read something else, even without weights
    if not timm.is_model(name.split(".")[0]) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"backbone {name!r} is not one of timm's own models (timm.list_models())")
    if weights not in ("none", "pip") and "." in name and not timm.is_model_pretrained(name):
        raise ValueError(f"backbone {name!r}: timm has no weights of that name (timm.list_pretrained())")
    if weights == "pip" and name != pip_weights.BACKBONE:
        raise ValueError(f'backbone_weights = "pip" holds {pip_weights.BACKBONE}, not {name!r}: set backbone to it')
    net = _without_weights(name, blocks) if weights in ("none", "pip") else _from_hub(name, weights, blocks)
    if isinstance(net, timm.models.EfficientNetFeatures):  # timm keeps, and runs, what lies behind the last block
        net.blocks = net.blocks[:1 + int(net.feature_info.module_name()[-1].removeprefix("blocks."))]
    if weights != "pip":
        return net, net.pretrained_cfg["mean"], net.pretrained_cfg["std"]
    tensors = pip_weights.pip_weights()
    net.load_state_dict({key: tensors[key] for key in net.state_dict()})
    return net, pip_weights.MEAN, pip_weights.STD


def _without_weights(name: str, blocks: tuple[int, ...]) -> nn.Module:
    """The network at random; ValueError where it has no three blocks."""
    try:
        return timm.create_model(name.split(".")[0], pretrained=False, features_only=True, out_indices=blocks)
    except Exception as error:  # timm raises nearly anything
        raise ValueError(f"backbone {name!r} has no feature blocks {blocks} ({type(error).__name__})") from error


def _from_hub(name: str, weights: str, blocks: tuple[int, ...]) -> nn.Module:
    """The network with timm's weights: from the hub ("hub"), or from a file or folder of the user's."""
    file = None if weights == "hub" else weights_file(weights)
    try:
        overlay = dict(file=str(file)) if file else None
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, features_only=True,
                                 out_indices=blocks)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if file:
            raise ValueError(f"{file} holds no weights of {name} ({type(error).__name__})") from None
        raise FileNotFoundError(
            f"the weights of {name} can't be had ({type(error).__name__}). Without a network, put the hub's "
            f"timm/{name}/model.safetensors into a folder and set backbone_weights to that folder") from error
