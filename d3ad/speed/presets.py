"""Presets: how a trained detector computes, from exactly as the paper says to as fast as its quality allows.

`faithful` changes nothing: float32, the paper's autoencoder, the detector's own number of steps.  What makes it faster than the
plain order of work (d3ad/speed/benchmark/naive.py) gives the same numbers but for rounding.  The others trade: fewer steps S of Algorithm 1, and `fast`
also the tiny autoencoder where the paper's is used, and bfloat16 where the machine multiplies it faster.
"""
import copy
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.autoencoders import LatentCodec
from d3ad.features import FeatureExtractor
from d3ad.speed.winograd import with_winograd


@dataclass(frozen=True)
class Preset:
    """One way to compute."""

    num_steps: int | None = None  # S of Algorithm 1; None: as the detector's config says
    low_precision: bool = False   # bfloat16 in all networks, where `low_precision_pays`
    tiny: bool = False            # AutoencoderTiny in place of AutoencoderKL, whose latent space it shares


PRESETS = {"faithful": Preset(), "10 steps": Preset(10), "5 steps": Preset(5), "3 steps": Preset(3), "2 steps": Preset(2),
           "1 step": Preset(1), "fast": Preset(1, low_precision=True, tiny=True)}


def preset(name: str) -> Preset:
    """The preset of that name.  Raises ValueError with all names."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
    return PRESETS[name]


def low_precision_pays(device: torch.device) -> bool:
    """Whether the machine has units for bfloat16: a GPU, or a processor with matrix tiles (AMX); elsewhere it is slower."""
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return getattr(torch.cpu, "_is_amx_tile_supported", bool)()


class Networks(nn.Module):
    """A detector's three networks as Algorithm 1 calls them: float32 in and out, `dtype` inside.

    In float32 their parameters are the detector's own, else copies; those that are saved stay as they were trained.  In
    float32 on a CPU, the paper's autoencoder and the UNet compute by Winograd's way the convolutions for which it `pays`.
    compiled: the UNet goes through torch.compile instead, with its weights laid out once for the machine.
    """

    def __init__(self, codec: LatentCodec, unet: nn.Module, backbone: FeatureExtractor, dtype: torch.dtype = torch.float32,
                 compiled: bool = False):
        super().__init__()
        on_cpu = next(unet.parameters()).device.type == "cpu"
        if dtype != torch.float32:
            codec, unet, backbone = (nn.Module.to(copy.deepcopy(part), dtype) for part in (codec, unet, backbone))
        elif on_cpu:
            codec = codec if codec.is_small else with_winograd(codec)
            unet = unet if compiled else with_winograd(unet)
        self.codec, self.backbone, self.dtype = codec, backbone, dtype
        self.unet = torch.compile(unet, options={"freezing": True}) if compiled else unet

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of z_0, as `LatentCodec.encode`."""
        mean, std = self.codec.encode(images.to(self.dtype))
        return mean.float(), std.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Images, as `LatentCodec.decode`."""
        return self.codec.decode(latents.to(self.dtype)).float()

    def eps(self, z: Tensor, t: Tensor) -> Tensor:
        """eps_theta(z, t), t the 0-based training index (B,)."""
        return self.unet(z.to(self.dtype), t).sample.float()

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """phi's blocks, as `FeatureExtractor`."""
        return {block: feature.float() for block, feature in self.backbone(images.to(self.dtype)).items()}
