"""Autoencoders E and D (Section 3): the paper's, its tiny twin, or a small one trained on the spot.

All three have one face: `encode(images) -> (mean, std)` of scaled latents and `decode(latents) -> images`.
"""
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.saved import check_network
from d3ad.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import AutoencoderKL, AutoencoderTiny, ConfigMixin, ModelMixin  # noqa: E402
from diffusers.configuration_utils import register_to_config  # noqa: E402

HUB = {"kl": "stabilityai/sd-vae-ft-mse", "tiny": "madebyollin/taesd"}


class ResBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
                                    nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class SmallAutoencoder(ModelMixin, ConfigMixin):
    """A variational autoencoder that two CPU cores train in a minute; 8x downsampling like the paper's.

    Two paths are added: a linear one, from a patch of 8 x 8 pixels to its latent and back, which starts as the principal
    components of the training patches (`start_linear`), and a convolutional one, which starts at zero and learns the
    rest.  The latter's first 4x are a rearrangement of pixels into channels, so that no layer works at full resolution.

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
    def start_linear(self, images: Tensor) -> None:
        """Set the linear path to the principal components of the images' patches, the first scaled to deviation 1."""
        patches = F.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2).double()
        mean = patches.mean(0)
        variances, axes = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        axes, scale = axes.flip(1)[:, :self.config.latent_channels], variances[-1].sqrt()
        self.encode_patch.weight.copy_((axes / scale).T.reshape(self.encode_patch.weight.shape))
        self.encode_patch.bias.copy_(-(mean @ axes) / scale)
        self.decode_patch.weight.copy_((axes * scale).T.reshape(self.decode_patch.weight.shape))
        # what a patch's mean adds beyond its components goes to the bias, one value per colour
        self.decode_patch.bias.copy_((mean - axes @ (axes.T @ mean)).reshape(3, 64).mean(1))

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, (B, C, H/8, W/8) each, unscaled."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        mean = mean + self.encode_patch(images) if self.config.linear else mean
        return mean, log_variance.clamp(-20, 10)

    def to_images(self, latents: Tensor) -> Tensor:
        """Unscaled latents to images (B, 3, H, W), about [-1, 1]."""
        images = self.decoder(latents)
        return images + self.decode_patch(latents) if self.config.linear else images


class LatentCodec(nn.Module):
    """E and D around one of the three autoencoders, with latents scaled to a standard deviation of about 1."""

    def __init__(self, model: ModelMixin, kind: str):
        super().__init__()
        self.model, self.kind = model.to(memory_format=torch.channels_last), kind  # a quarter faster on a CPU
        if not self.is_small:  # never trained here, so activations may overwrite their input
            for layer in model.modules():
                if isinstance(layer, nn.SiLU):
                    layer.inplace = True

    @property
    def is_small(self) -> bool:
        """One of the two that are trained here."""
        return isinstance(self.model, SmallAutoencoder)

    @property
    def scale(self) -> float:
        return float(self.model.config.scaling_factor)

    @property
    def factor(self) -> int:
        """How many pixels one latent position spans in each direction."""
        return 8 if self.is_small else 2 ** (len(self.model.config.get("block_out_channels")
                                                        or self.model.config.encoder_block_out_channels) - 1)

    @property
    def channels(self) -> int:
        """Of the latents."""
        return self.model.config.latent_channels

    def _one_by_one(self, function, inputs: Tensor) -> Tensor:
        """On a CPU, the paper's autoencoder takes one image at a time: its layers at full size don't fit the processor's cache."""
        if self.kind == "kl" and inputs.device.type == "cpu":
            return torch.cat([function(image) for image in inputs.split(1)])
        return function(inputs)

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) in [-1, 1] to mean and standard deviation of z_0, (B, C, H/8, W/8) each."""
        if self.kind == "tiny":  # has no posterior
            mean = self.model.encode(images).latents
            return self.scale * mean, torch.zeros_like(mean)
        if self.is_small:
            mean, log_variance = self.model.moments(images)
            return self.scale * mean, self.scale * (0.5 * log_variance).exp()
        mean, log_variance = self._one_by_one(lambda x: self.model.encode(x).latent_dist.parameters, images).chunk(2, dim=1)
        return self.scale * mean, self.scale * (0.5 * log_variance.clamp(-30, 20)).exp()  # as diffusers' DiagonalGaussianDistribution

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images (B, 3, H, W) in [-1, 1]."""
        latents = latents / self.scale
        if self.is_small:
            return self.model.to_images(latents).clamp(-1, 1)
        return self._one_by_one(lambda z: self.model.decode(z).sample, latents).clamp(-1, 1)


def autoencoder_loss(model: SmallAutoencoder, images: Tensor, noise: Tensor, kl_weight: float = 1e-4,
                     distance: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
    """Mean absolute error of the decoded posterior sample, plus the KL divergence to N(0, 1) per latent element, a scalar.

    images: (B, 3, H, W) in [-1, 1].  noise: (B, C, H/8, W/8), standard normal.
    distance: of decoded images and images, a scalar that is added, such as a perceptual one.
    """
    mean, log_variance = model.moments(images)
    decoded = model.to_images(mean + (0.5 * log_variance).exp() * noise)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = F.l1_loss(decoded, images) + kl_weight * kl
    return loss if distance is None else loss + distance(decoded, images)


def load_autoencoder(kind: str, weights: str, latent_channels: int = 4) -> LatentCodec:
    """The autoencoder `kind` with weights from the hub, from a local folder, or ("none") at random, to be trained.

    Raises FileNotFoundError, saying which file to put where, when the weights can't be had; ValueError for a kind that
    doesn't exist or can't be trained here, or for a folder that holds another network.
    """
    classes = {"kl": AutoencoderKL, "tiny": AutoencoderTiny, "small": SmallAutoencoder, "smooth": SmallAutoencoder}
    if not isinstance(kind, str) or kind not in classes:
        raise ValueError(f"autoencoder must be one of {', '.join(classes)}; got {kind!r}")
    if weights == "none":
        if classes[kind] is SmallAutoencoder:
            return LatentCodec(SmallAutoencoder(latent_channels, linear=kind == "small"), kind)
        raise ValueError(f'autoencoder "{kind}" is not trained here: set autoencoder_weights to "{HUB[kind]}" or a '
                         'folder, or use autoencoder = "small"')
    is_local = Path(weights).is_dir()
    try:  # safetensors only: a pickle would run what its maker likes
        if is_local:
            check_network(Path(weights), classes[kind])
        model, found = classes[kind].from_pretrained(weights, low_cpu_mem_usage=False, use_safetensors=True, local_files_only=is_local,
                                                     output_loading_info=True)
        if found["missing_keys"] or found["mismatched_keys"]:  # diffusers only warns, and leaves them at random
            raise ValueError(f"its weights lack {', '.join(sorted(map(str, found['missing_keys'] or found['mismatched_keys']))[:3])}")
        if not all(value.isfinite().all() for value in model.state_dict().values()):
            raise ValueError("its weights are NaN or infinite")
        return LatentCodec(model, kind)
    except (OSError, RuntimeError, ValueError) as error:
        if is_local and not isinstance(error, OSError):
            raise ValueError(f"{weights} holds no autoencoder of kind {kind!r}: {' '.join(str(error).split())[:300]}") from None
        where = Path(weights) if is_local else "a folder"
        raise FileNotFoundError(
            f'the weights of autoencoder "{kind}" can\'t be had from {weights} ({type(error).__name__}). Without a '
            f"network, put config.json and diffusion_pytorch_model.safetensors of {HUB.get(kind, 'a saved model')} into "
            f"{where} and set autoencoder_weights to it") from error
