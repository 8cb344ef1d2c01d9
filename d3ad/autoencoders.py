"""Autoencoders E and D (Section 3): the paper's, its tiny twin, TAEF2, or a small one trained here (d3ad/from_scratch).

All share one interface: `encode(images) -> (mean, std)` of scaled latents and `decode(latents) -> images`.
"""
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from d3ad.infra import pretrained, taef2
from d3ad.infra.small_autoencoder import SmallAutoencoder
from d3ad.infra.taef2 import TAEF2
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import AutoencoderKL, AutoencoderTiny, ModelMixin  # noqa: E402

HUB = {"kl": "stabilityai/sd-vae-ft-mse", "tiny": "madebyollin/taesd"}


class LatentCodec(nn.Module):
    """E and D around one of the autoencoders, with latents scaled to a standard deviation of about 1."""

    def __init__(self, model: ModelMixin, kind: str):
        super().__init__()
        self.model, self.kind = model.to(memory_format=torch.channels_last), kind  # a quarter faster on a CPU
        if not self.is_small:  # never trained here, so activations may overwrite their input
            for layer in model.modules():
                if isinstance(layer, (nn.SiLU, nn.ReLU)):
                    layer.inplace = True

    @property
    def is_small(self) -> bool:
        """One of the two that are trained here."""
        return self.kind in ("small", "smooth")

    @property
    def scale(self) -> float:
        return float(self.model.config.scaling_factor)

    @property
    def channels(self) -> int:
        """How many channels the latents have."""
        return self.model.config.latent_channels

    def check_channels(self, expected: int) -> "LatentCodec":
        """Return self.  Raises ValueError where the latents have another number of channels than the UNet takes."""
        if self.channels != expected:
            raise ValueError(f"latent_channels is {expected}, but the autoencoder has {self.channels} latent channels")
        return self

    def _portions(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The batch in parts.  On a CPU the large autoencoders take one image at a time: its cache holds no more."""
        whole = self.is_small or inputs.device.type != "cpu" or torch.compiler.is_exporting()  # for any batch size
        return (inputs,) if whole else inputs.split(1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] to mean and standard deviation of z_0, (B, C, H/8, W/8) each."""
        if self.kind in ("tiny", "taef2"):  # they have no posterior
            mean = torch.cat([self.model.encode(portion).latents for portion in self._portions(images)])
            return self.scale * mean, torch.zeros_like(mean)
        if self.is_small:
            mean, log_variance = self.model.moments(images)
            return self.scale * mean, self.scale * (0.5 * log_variance).exp()
        posteriors = [self.model.encode(portion).latent_dist for portion in self._portions(images)]
        return self.scale * torch.cat([p.mean for p in posteriors]), self.scale * torch.cat([p.std for p in posteriors])

    def encode_all(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode`, for any number of images, 32 at a time; the results are on the CPU."""
        moments = [self.encode(batch.to(self.model.device)) for batch in images.split(32)]
        return tuple(torch.cat(part).cpu() for part in zip(*moments, strict=True))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images (B, 3, H, W) in [-1, 1]."""
        latents = latents / self.scale
        if self.is_small:
            return self.model.to_images(latents).clamp(-1, 1)
        return torch.cat([self.model.decode(z).sample for z in self._portions(latents)]).clamp(-1, 1)


def load_autoencoder(kind: str, weights: str, latent_channels: int = 4) -> LatentCodec:
    """The autoencoder `kind` with weights from the hub, from a local folder, or ("none") at random, to be trained.

    TAEF2's lie in a folder as published (`taef2.load`), or as `D3AD.save` writes them.

    Raises FileNotFoundError, saying which file to put where, when the weights can't be had; ValueError for a kind that
    doesn't exist or can't be trained here, or for a folder that holds another network.
    """
    classes = {"kl": AutoencoderKL, "tiny": AutoencoderTiny, "taef2": TAEF2, "small": SmallAutoencoder,
               "smooth": SmallAutoencoder}
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"autoencoder must be one of {', '.join(classes)}; got {kind!r}")
    if weights == "none":
        if classes[kind] is SmallAutoencoder:
            return LatentCodec(SmallAutoencoder(latent_channels, linear=kind == "small"), kind)
        hub = f'"{HUB[kind]}" or ' if kind in HUB else ""
        raise ValueError(f'autoencoder "{kind}" is not trained here: set autoencoder_weights to {hub}a folder, or use '
                         'autoencoder = "small"')
    weights = str(Path(weights).expanduser()) if weights.startswith("~") else weights
    if kind == "taef2" and not (Path(weights) / "config.json").exists():
        return LatentCodec(taef2.load(weights), kind)
    return LatentCodec(pretrained.load(classes[kind], kind, weights, HUB.get(kind, "a saved model")), kind)
