"""A small autoencoder and its training on normal images.  Not part of the paper, which takes Stable Diffusion's."""
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.config import Config
from d3ad.features import FeatureExtractor, adaptation_loss
from d3ad.from_scratch.batches import batch_of
from d3ad.infra.optimising import optimise
from d3ad.infra.processes import ALONE, Alone
from d3ad.infra.torchvision_shim import make_torchvision_importable
from d3ad.training import step_generator

make_torchvision_importable()
from diffusers import ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402

if TYPE_CHECKING:
    from d3ad.autoencoders import LatentCodec

NARROWEST = 1e-3  # share of the widest principal component's standard deviation; narrower ones are widened as this one


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


def autoencoder_loss(model: SmallAutoencoder, images: Tensor, noise: Tensor, kl_weight: float = 1e-4,
                     distance: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Mean absolute error of the decoded posterior sample, plus the KL divergence to N(0, 1) per element.

    images: (B, 3, H, W) in [-1, 1].  noise: (B, C, H/8, W/8), standard normal.
    distance: of decoded images and images, a scalar that is added, such as a perceptual one.
    """
    mean, log_variance = model.moments(images)
    decoded = model.to_images(mean + (0.5 * log_variance).exp() * noise)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = F.l1_loss(decoded, images) + kl_weight * kl
    return loss if distance is None else loss + distance(decoded, images)


def train_autoencoder(codec: "LatentCodec", images: Tensor, config: Config, folder: Path | None = None,
                      team: Alone = ALONE) -> list[float]:
    """Train the small autoencoder on normal images (N, 3, H, W), and scale its latents to standard deviation 1.

    With `autoencoder_perceptual`, its loss also holds the distance of the config's pretrained features, which stay as
    they are.  Raises FileNotFoundError where these can't be had.
    """
    model = codec.model
    distance = perceptual_distance(config, model.device) if config.autoencoder_perceptual else None
    if model.config.linear:
        some = images[torch.linspace(0, len(images) - 1, min(len(images), 200)).long()]
        model.start_linear(some, config.latent_whitening)

    def loss_of_step(step: int) -> Tensor:
        batch = batch_of(images, step, config)
        shape = (len(batch), config.latent_channels, *(side // 8 for side in batch.shape[2:]))
        noise = torch.randn(shape, generator=step_generator(config.seed, step))
        mine, noise = (team.share(x).to(model.device) for x in (batch, noise))
        return team.weighted(autoencoder_loss(model, mine, noise, distance=distance), of=len(batch))

    losses = optimise("autoencoder", model, loss_of_step, config.autoencoder_steps, learning_rate=2e-3,
                      schedule="cosine", folder=folder, team=team)
    model.register_to_config(scaling_factor=1.0)
    mean, _ = codec.encode_all(images[:256])
    model.register_to_config(scaling_factor=round(float(1 / mean.std()), 6))
    return losses


def perceptual_distance(config: Config, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of decoded images and images: their distance in phi's blocks, times `autoencoder_perceptual`.

    It is the distance of Eq. 10, so what the maps compare starts close to zero on normal images.  phi is frozen;
    gradients reach the decoded images only.
    """
    phi = FeatureExtractor(config.backbone, config.backbone_weights).to(device).eval().requires_grad_(False)

    def distance(decoded: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = phi(images)
        features = phi(decoded)
        blocks = config.adapt_blocks
        return config.autoencoder_perceptual * adaptation_loss([wanted[j] for j in blocks],
                                                               [features[j] for j in blocks])

    return distance
