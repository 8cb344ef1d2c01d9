"""Training: which images it takes, and the loops of the latent diffusion model (Eq. 6) and of the adaptation of the
features (Eq. 10).

Every random draw of a step comes from a generator seeded by (seed, step), so a run that was stopped and resumed ends
with the same weights as one that never stopped.  A team of several processes (d3ad/infra/processes.py) can be handed to
the trainings; features are trained by all alike, since a batch's normalisation needs the whole batch.
"""
from collections.abc import Iterable
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from d3ad import diffusion
from d3ad.config import Config
from d3ad.data.apart import num_trained_on
from d3ad.data.moving import moved
from d3ad.features import FeatureExtractor, adaptation_levels, adaptation_loss
from d3ad.infra.batches import batch_indices, step_generator
from d3ad.infra.devices import pick_device, seeded
from d3ad.infra.optimising import optimise
from d3ad.infra.processes import ALONE, Alone
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import UNet2DModel  # noqa: E402
from diffusers.models.attention_processor import Attention  # noqa: E402

if TYPE_CHECKING:
    from d3ad.autoencoders import LatentCodec


def make_unet(config: Config) -> UNet2DModel:
    """eps_theta: the authors' unconditional UNet (after Rombach et al. 2022) as a `UNet2DModel`, 281.1 M weights by
    default as theirs.

    Each attention has `unet_heads` heads.  diffusers' constructor, and with it the config.json of a saved UNet, knows
    only a width that all heads share: there it is that of the last level.
    """
    plain = "Resnet{}sampleBlock2D" if config.unet_resampling == "resnet" else "{}Block2D"
    has_attention = [level in config.unet_attention for level in range(len(config.unet_channels))]
    unet = UNet2DModel(
        in_channels=config.latent_channels, out_channels=config.latent_channels,
        block_out_channels=config.unet_channels, layers_per_block=config.unet_layers,
        down_block_types=tuple("AttnDownBlock2D" if a else plain.format("Down") for a in has_attention),
        up_block_types=tuple("AttnUpBlock2D" if a else plain.format("Up") for a in reversed(has_attention)),
        downsample_type=config.unet_resampling, upsample_type=config.unet_resampling,
        attention_head_dim=config.unet_channels[-1] // config.unet_heads, norm_num_groups=config.unet_groups)
    set_heads(unet, config.unet_heads)
    return unet.to(memory_format=torch.channels_last)


def set_heads(unet: UNet2DModel, heads: int) -> None:
    """Give each attention so many heads; diffusers' constructor takes their width from one level for all."""
    for layer in unet.modules():
        if isinstance(layer, Attention):
            layer.heads, layer.scale = heads, (layer.inner_dim // heads) ** -0.5


def eps_model(unet: UNet2DModel) -> diffusion.EpsModel:
    """The network as Algorithm 1 calls it: eps_model(z, t), t the 0-based training index."""
    return lambda z, t: unet(z, t).sample


def check_training_images(images: Tensor, config: Config) -> None:
    """Raise ValueError where there are too few images (N, 3, H, W) for Algorithm 2, or to standardise maps by."""
    needed = config.k + (not config.include_self)
    count = num_trained_on(len(images), config.calibration_share)
    if count < needed:
        raise ValueError(f"{count} training images are too few for k = {config.k} neighbours: give at least "
                         f"{ceil(needed / (1 - config.calibration_share))}, or lower k")
    calibrating = min(config.calibration_images, len(images) - count or len(images))
    if config.standardise and calibrating < 2:  # one image has no standard deviation
        raise ValueError(f"standardise needs at least 2 images that calibrate, and {len(images)} training images with "
                         f"calibration_share = {config.calibration_share:g} and calibration_images = "
                         f"{config.calibration_images} leave {calibrating}: give more images, raise either, or set "
                         "standardise = []")


def num_latents(num_images: int, config: Config) -> int:
    """How many latents the diffusion model learns from: those of so many images, and of their moved copies."""
    return num_trained_on(num_images, config.calibration_share) * (1 + config.train_moved)


def latents(codec: "LatentCodec", images: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what the diffusion model learns from, (N (1 + train_moved), C, h, w) each: the
    latents of images (N, 3, H, W), then those of moved copies of each.
    """
    copies = (moved(images, config.seed + copy, config.train_light) for copy in range(config.train_moved))
    mean, std = zip(*map(codec.encode_all, (images, *copies)))
    return torch.cat(mean), torch.cat(std)


def train_diffusion(unet: UNet2DModel, mean: Tensor, std: Tensor, config: Config, folder: Path | None = None,
                    team: Alone = ALONE) -> list[float]:
    """Train eps_theta by Eq. 6 on latents given by their posterior's mean and std, (N, C, h, w) each; the loss of each
    step.

    folder: training states are kept there, and an interrupted training goes on from them.  team: who shares a batch.
    With `accumulate` a batch passes in so many parts: the loss and its gradients are those of the whole batch, up to
    rounding.
    """
    abar = diffusion.alpha_bar(config.beta_start, config.beta_end, config.num_timesteps)
    mean, std = mean.to(unet.device), std.to(unet.device)
    model = eps_model(unet)

    def losses_of_step(step: int) -> Iterable[Tensor]:
        generator = step_generator(config.seed, step)
        index = batch_indices(len(mean), config.batch_size, step, config.seed)
        size = len(index)
        noise, sample = (torch.randn((size, *mean.shape[1:]), generator=generator) for _ in range(2))
        t = torch.randint(1, config.train_t_max + 1, (size,), generator=generator)
        index, noise, sample, t = (team.share(x).to(mean.device) for x in (index, noise, sample, t))
        z0 = mean[index] + std[index] * sample  # a fresh posterior sample each time, as if encoded anew
        for part in torch.arange(len(z0)).tensor_split(min(config.accumulate, len(z0))):
            part = slice(part[0], part[-1] + 1)
            with torch.autocast(mean.device.type, torch.bfloat16, enabled=config.train_precision == "bfloat16"):
                loss = diffusion.simple_loss(model, z0[part], t[part], noise[part], abar)
            yield team.weighted(loss, of=size) * (len(z0[part]) / len(z0))

    return optimise("diffusion", unet, losses_of_step, num_training_steps(config, len(mean)),
                    learning_rate=config.learning_rate, weight_decay=config.weight_decay, ema_decay=config.ema_decay,
                    schedule=config.learning_schedule, folder=folder, checkpoints=config.checkpoints, team=team)


def fit_unet(mean: Tensor, std: Tensor, config: Config, folder: Path | None, losses: dict, team: Alone = ALONE,
             start: torch.nn.Module | None = None) -> torch.nn.Module:
    """The noise predictor, trained on latents by their mean and standard deviation (N, C, h, w); from the weights of
    `start`, a UNet of the same settings, or from random ones.
    """
    with seeded(config.seed):
        unet = make_unet(config).to(pick_device(config.device))
    if start is not None:
        unet.load_state_dict(start.state_dict())
    losses["diffusion"] = train_diffusion(unet, mean, std, config, folder, team)
    return unet


def num_training_steps(config: Config, num_images: int) -> int:
    """`train_steps`, or what `train_epochs` come to."""
    return config.train_steps or config.train_epochs * steps_per_epoch(config, num_images)


def steps_per_epoch(config: Config, num_images: int) -> int:
    """Whole batches that so many images give; of fewer than a batch, one."""
    return num_images // min(config.batch_size, num_images)


def adapt(backbone: FeatureExtractor, codec: "LatentCodec", unet: UNet2DModel, images: Tensor, mean: Tensor,
          config: Config, folder: Path | None = None) -> list[float]:
    """Domain adaptation (Section 4.3): fine-tune phi by Eq. 10 so that it overlooks what E, D and the UNet get wrong.

    images: normal, (N, 3, H, W); mean: their latents.  Each is reconstructed from a random level of 10-100 % of T_max.
    folder: of training states, as in `train_diffusion`.  Returns the loss of each step.
    """
    abar = diffusion.alpha_bar(config.beta_start, config.beta_end, config.num_timesteps)
    device = backbone.mean.device
    model = eps_model(unet)
    backbone.requires_grad_(True)

    def loss_of_step(step: int) -> Tensor:
        if config.adapt_batch_norm == "running":
            backbone.eval()  # its statistics stay as they are; its weights learn
        generator = step_generator(config.seed, step)
        index = batch_indices(len(images), config.batch_size, step, config.seed)
        t_hat = adaptation_levels(len(index), config.t_max, generator).to(device)
        z_hat = diffusion.reconstruct(model, mean[index].to(device), t_hat, abar, config.num_steps, config.guidance,
                                      config.spacing, config.omega, generator,
                                      first_direction=not config.second_sampler)
        features, features_hat = backbone(images[index].to(device)), backbone(codec.decode(z_hat))
        return adaptation_loss([features[j] for j in config.adapt_blocks],
                               [features_hat[j] for j in config.adapt_blocks], config.adapt_loss)

    return optimise("adaptation", backbone, loss_of_step, config.adapt_epochs * steps_per_epoch(config, len(images)),
                    learning_rate=config.adapt_learning_rate, weight_decay=config.weight_decay, folder=folder)
