"""TAEF2 (Ollin Boer Bohan, MIT licence): a tiny autoencoder of FLUX.2's latent space, 32 channels at 1/8 of the image.

It is not the paper's, and no dependency: a user who has its weights may name their folder.
"""
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.infra.checkpoint import load_network, weights_file
from d3ad.infra.known_pickles import known_content, tensors_in
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput  # noqa: E402
from diffusers.models.autoencoders.vae import DecoderOutput  # noqa: E402

HOME = "https://github.com/madebyollin/taesd"
SHA256 = {"encoder": "10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6",  # of taef2_encoder.pth
          "decoder": "0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5"}


class Block(nn.Module):
    """Three convolutions and a skip; with `pooled`, normalised features of each position are added before."""

    def __init__(self, width: int, pooled: bool = False):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                  nn.Conv2d(width, width, 3, padding=1))
        if pooled:
            self.pool = nn.Sequential(nn.Conv2d(width, 4 * width, 1, bias=False), nn.GroupNorm(4, 4 * width), nn.ReLU(),
                                      nn.Conv2d(4 * width, width, 1, bias=False))
        self.pooled = pooled

    def forward(self, x: Tensor) -> Tensor:
        if self.pooled:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    """Keeps latents within -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class TAEF2(ModelMixin, ConfigMixin):
    """The network under the names of its published weights: `encoder.N` and `decoder.N` of two plain sequences.

    encoder: images (B, 3, H, W) in [0, 1] to latents (B, latent_channels, H/8, W/8); decoder: back.
    scaling_factor: one over the latents' standard deviation, about 0.75.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 32, width: int = 64, scaling_factor: float = 4 / 3):
        super().__init__()

        def blocks(count: int = 3, pooled: bool = False) -> list[nn.Module]:
            return [Block(width, pooled) for _ in range(count)]

        def halve() -> nn.Module:
            return nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)

        def double() -> list[nn.Module]:
            return [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1, bias=False)]

        self.encoder = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), *blocks(1), halve(), *blocks(), halve(),
                                     *blocks(), halve(), *blocks(pooled=True),
                                     nn.Conv2d(width, latent_channels, 3, padding=1))
        self.decoder = nn.Sequential(SoftClamp(), nn.Conv2d(latent_channels, width, 3, padding=1), nn.ReLU(),
                                     *blocks(pooled=True), *double(), *blocks(), *double(), *blocks(), *double(),
                                     *blocks(1), nn.Conv2d(width, 3, 3, padding=1))

    def encode(self, images: Tensor) -> AutoencoderTinyOutput:
        """Encode images in [-1, 1], as `AutoencoderTiny.encode`."""
        return AutoencoderTinyOutput(self.encoder((images + 1) / 2))

    def decode(self, latents: Tensor) -> DecoderOutput:
        """To images in [-1, 1], as `AutoencoderTiny.decode`."""
        return DecoderOutput(2 * self.decoder(latents) - 1)


def load(place: str) -> TAEF2:
    """The network with its weights, ready to predict.

    place: a folder that holds taef2_encoder.pth and taef2_decoder.pth as published, or model.safetensors with the names
    of both; or such a safetensors file.  Raises FileNotFoundError, saying which file to put where, for what is missing;
    ValueError for a file that is damaged or of another network.
    """
    folder = Path(place).expanduser()
    if folder.is_file() or (folder / "model.safetensors").is_file():
        return load_network(weights_file(place), TAEF2)
    network = TAEF2()
    for part, expected in SHA256.items():
        file = folder / f"taef2_{part}.pth"
        if not file.is_file():
            raise FileNotFoundError(f"no weights at {file}: put taef2_encoder.pth and taef2_decoder.pth of {HOME} into "
                                    "that folder, or give another")
        getattr(network, part).load_state_dict(tensors_in(known_content(file, expected, f"take it anew from {HOME}")))
    return network.eval()
