"""Training of the small autoencoder on normal images.  Not part of the paper, which takes Stable Diffusion's."""
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad.autoencoders import LatentCodec, load_autoencoder
from d3ad.config import Config
from d3ad.features import FeatureExtractor, adaptation_loss
from d3ad.from_scratch.batches import batch_of
from d3ad.infra.batches import step_generator
from d3ad.infra.devices import pick_device, seeded
from d3ad.infra.optimising import optimise
from d3ad.infra.processes import ALONE, Alone
from d3ad.infra.small_autoencoder import SmallAutoencoder


def fit_codec(images: Tensor | None, config: Config, folder: Path | None, losses: dict,
              team: Alone = ALONE) -> LatentCodec:
    """The autoencoder that the config asks for, loaded, or trained on `images` where it has no weights.

    Raises ValueError where its latents have other channels than the config says.
    """
    with seeded(config.seed):
        codec = load_autoencoder(config.autoencoder, config.autoencoder_weights, config.latent_channels)
    codec = codec.check_channels(config.latent_channels).to(pick_device(config.device))
    if config.autoencoder_weights == "none":
        losses["autoencoder"] = train_autoencoder(codec, images, config, folder, team)
    return codec.eval().requires_grad_(False)


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


def train_autoencoder(codec: LatentCodec, images: Tensor, config: Config, folder: Path | None = None,
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
