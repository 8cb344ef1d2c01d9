"""A small autoencoder that two CPU cores train in a minute (d3ad/from_scratch trains it).  Not part of the paper, which
takes Stable Diffusion's.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402

NARROWEST = 1e-3  # share of the widest principal component's standard deviation; narrower ones count as this wide


class ResBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
                                    nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SmallAutoencoder(ModelMixin, ConfigMixin):
    """A variational autoencoder that two CPU cores train in a minute; 8x downsampling like the paper's.

    Two paths are added: a linear one, from a patch of 8 x 8 pixels to its latent and back, which starts as the
    principal components of the training patches (`start_linear`), and a convolutional one, which starts at zero and
    learns the rest.  The latter's first 4x are a rearrangement of pixels into channels, so that no layer works at full
    resolution.

    linear: False leaves the linear path out.  What remains learns the smooth part of an image first, and forgets grain;
    on rough surfaces that is what a detector wants.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 4, width: int = 64, depth: int = 2, scaling_factor: float = 1.0,
                 linear: bool = True):
        super().__init__()
        fine, coarse = width, 2 * width
        if linear:
            self.encode_patch = nn.Conv2d(3, latent_channels, 8, stride=8)
            self.decode_patch = nn.ConvTranspose2d(latent_channels, 3, 8, stride=8)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(48, fine, 3, padding=1), ResBlock(fine),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1), *[ResBlock(coarse) for _ in range(depth)],
            nn.GroupNorm(8, coarse), nn.SiLU(), nn.Conv2d(coarse, 2 * latent_channels, 3, padding=1))
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, coarse, 3, padding=1), *[ResBlock(coarse) for _ in range(depth)],
            nn.Conv2d(coarse, 4 * fine, 3, padding=1), nn.PixelShuffle(2), ResBlock(fine),
            nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, 48, 3, padding=1), nn.PixelShuffle(4))
        if linear:
            for last in (self.encoder[-1], self.decoder[-2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            with torch.no_grad():
                self.encoder[-1].bias[latent_channels:] = -6.0  # a narrow posterior to begin with

    @torch.no_grad()
    def start_linear(self, images: Tensor, whitening: float = 0.0) -> None:
        """Set the linear path to the patches' principal components, the first at standard deviation 1.

        Another whose share of the first's standard deviation is s gets s ** (1 - whitening): all 1 at 1.
        """
        # on the CPU: Apple's GPUs have no float64
        patches = F.pixel_unshuffle(images.cpu(), 8).permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = patches.mean(0)
        variances, axes = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        axes, widest = axes.flip(1)[:, :self.config.latent_channels], variances[-1].sqrt()
        shares = (variances.flip(0)[:axes.shape[1]] / variances[-1]).clamp_min(NARROWEST ** 2).sqrt()
        scale = widest * shares ** whitening
        self.encode_patch.weight.copy_((axes / scale).T.reshape(self.encode_patch.weight.shape).float())
        self.encode_patch.bias.copy_((-(mean @ axes) / scale).float())
        self.decode_patch.weight.copy_((axes * scale).T.reshape(self.decode_patch.weight.shape).float())
        # what a patch's mean adds beyond its components goes to the bias, one value per colour
        self.decode_patch.bias.copy_((mean - axes @ (axes.T @ mean)).reshape(3, 64).mean(1).float())

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, (B, C, H/8, W/8) each, unscaled."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        mean = mean + self.encode_patch(images) if self.config.linear else mean
        return mean, log_variance.clamp(-20, 10)

    def to_images(self, latents: Tensor) -> Tensor:
        """Unscaled latents to images (B, 3, H, W), about [-1, 1]."""
        images = self.decoder(latents)
        return images + self.decode_patch(latents) if self.config.linear else images
