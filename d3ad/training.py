"""Training loops: the latent diffusion model (Eq. 6) and the adaptation of the features (Eq. 10).

Every random draw of a step comes from a generator seeded by (seed, step), so a run that was stopped and resumed ends
with the same weights as one that never stopped.  A team of several processes (d3ad/infra/processes.py) can be handed to
the trainings; features are trained by all alike, since a batch's normalisation needs the whole batch.
"""
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from d3ad import diffusion
from d3ad.config import Config
from d3ad.features import FeatureExtractor, adaptation_levels, adaptation_loss
from d3ad.infra.checkpoint import keep_training, restore_training
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers import UNet2DModel  # noqa: E402

if TYPE_CHECKING:
    from d3ad.autoencoders import LatentCodec


class Alone:
    """One process that trains alone; `d3ad.infra.processes.Launched` has the same methods, for several."""

    count, is_first = 1, True

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of rows (N, ...)."""
        return rows

    def gather(self, parts: list) -> list:
        """The lists of all processes, one after the other."""
        return parts

    def check_same(self, step: int, folder: Path | None) -> None:
        """Raise ValueError where processes would go on from different steps."""

    def weighted(self, loss: Tensor, of: int) -> Tensor:
        """The mean loss of this process's share of `of` images, scaled so that the processes average to its mean."""
        return loss

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Average the gradients over all processes, in place; returns the average loss."""
        return loss


ALONE = Alone()


def make_unet(config: Config) -> UNet2DModel:
    """eps_theta: the nearest `UNet2DModel` to the paper's unconditional UNet (Rombach et al. 2022)."""
    has_attention = [level in config.unet_attention for level in range(len(config.unet_channels))]
    return UNet2DModel(
        in_channels=config.latent_channels, out_channels=config.latent_channels,
        block_out_channels=config.unet_channels, layers_per_block=config.unet_layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in has_attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(has_attention)),
        attention_head_dim=config.unet_head_dim, norm_num_groups=16).to(memory_format=torch.channels_last)


def eps_model(unet: UNet2DModel) -> diffusion.EpsModel:
    """The network as Algorithm 1 calls it: eps_model(z, t), t the 0-based training index."""
    return lambda z, t: unet(z, t).sample


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random stream of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(num_images: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which images step `step` sees: each epoch shuffles anew and drops its last incomplete batch (authors' code)."""
    batch_size = min(batch_size, num_images)
    epoch, position = divmod(step, num_images // batch_size)
    order = torch.randperm(num_images, generator=step_generator(seed + 7919, epoch))
    return order[position * batch_size:(position + 1) * batch_size]


def random_crop(images: Tensor, step: int, config: Config) -> Tensor:
    """A window of `crop_size` pixels, at the same place of each image; convolutions learn as much from it, for less."""
    size = config.crop_size or images.shape[-1]
    if size >= images.shape[-1]:
        return images
    top, left = torch.randint(0, images.shape[-1] - size + 1, (2,),
                              generator=step_generator(config.seed + 104729, step)).tolist()
    return images[..., top:top + size, left:left + size]


def optimise(name: str, model: nn.Module, loss_of_step: Callable[[int], Tensor], num_steps: int, *,
             learning_rate: float,
             weight_decay: float = 0.0, ema_decay: float = 0.0, schedule: str = "constant", folder: Path | None = None,
             save_every: int = 200, team: Alone = ALONE) -> list[float]:
    """AdamW on `loss_of_step(step)` for `num_steps` steps; trains `model` in place and returns the losses.

    name: shown beside the progress bar.  schedule: "constant" (the paper's) or "cosine", a short warm-up, then down to
    zero.  ema_decay: above 0, the weights left in `model` are their moving average.
    folder: weights, optimizer and step are kept there, and a run that finds them goes on from them.
    team: the processes that share the training; `loss_of_step` shares its batch out itself.
    Raises FloatingPointError when the loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()} if ema_decay else None
    losses = restore_training(folder, model, optimizer, average) if folder else []
    team.check_same(len(losses), folder)
    model.train()
    bar = tqdm(range(len(losses), num_steps), desc=name, initial=len(losses), total=num_steps, unit="step",
               mininterval=2)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(step, num_steps, schedule)
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = team.average(model, loss)
        optimizer.step()
        losses.append(loss.item())
        if not loss.isfinite():
            raise FloatingPointError(f"{name}: the loss became {losses[-1]} at step {step}; lower the learning rate")
        if average is not None:
            decay = min(ema_decay, (step + 1) / (step + 10))  # early weights are forgotten fast
            _average(average, model.state_dict(), decay)
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
        if folder and team.is_first and ((step + 1) % save_every == 0 or step + 1 == num_steps):
            keep_training(folder, model, optimizer, average, losses)
    if average is not None:
        model.load_state_dict(average)
    model.eval().requires_grad_(False)
    return losses


@torch.no_grad()
def _average(average: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> None:
    """Move each entry a little towards the new one, all in one call; counters are copied."""
    moving = [key for key, value in new.items() if value.is_floating_point()]
    get_ema_multi_avg_fn(decay)([average[key] for key in moving], [new[key] for key in moving], None)
    for key in set(new) - set(moving):
        average[key].copy_(new[key])


def _rate(step: int, num_steps: int, schedule: str) -> float:
    if schedule == "constant":
        return 1.0
    warm_up = max(num_steps // 20, 1)
    return min((step + 1) / warm_up, 0.5 * float(1 + torch.cos(torch.tensor(torch.pi * step / num_steps))))


def train_diffusion(unet: UNet2DModel, mean: Tensor, std: Tensor, config: Config, folder: Path | None = None,
                    team: Alone = ALONE) -> list[float]:
    """Train eps_theta by Eq. 6 on latents given by their posterior's mean and std, (N, C, h, w) each."""
    abar = diffusion.alpha_bar(config.beta_start, config.beta_end, config.num_timesteps)
    mean, std = mean.to(unet.device), std.to(unet.device)
    model = eps_model(unet)

    def loss_of_step(step: int) -> Tensor:
        generator = step_generator(config.seed, step)
        index = batch_indices(len(mean), config.batch_size, step, config.seed)
        size = len(index)
        noise, sample = (torch.randn((size, *mean.shape[1:]), generator=generator) for _ in range(2))
        t = torch.randint(1, config.train_t_max + 1, (size,), generator=generator)
        index, noise, sample, t = (team.share(x).to(mean.device) for x in (index, noise, sample, t))
        z0 = mean[index] + std[index] * sample  # a fresh posterior sample each time, as if encoded anew
        with torch.autocast(mean.device.type, torch.bfloat16, enabled=config.train_precision == "bfloat16"):
            loss = diffusion.simple_loss(model, z0, t, noise, abar)
        return team.weighted(loss, of=size)

    return optimise("diffusion", unet, loss_of_step, num_training_steps(config, len(mean)),
                    learning_rate=config.learning_rate, weight_decay=config.weight_decay, ema_decay=config.ema_decay,
                    schedule=config.learning_schedule, folder=folder, team=team)


def num_training_steps(config: Config, num_images: int) -> int:
    """`train_steps`, or what `train_epochs` come to."""
    return config.train_steps or config.train_epochs * (num_images // min(config.batch_size, num_images))


def adapt(backbone: FeatureExtractor, codec: "LatentCodec", unet: UNet2DModel, images: Tensor, mean: Tensor,
          config: Config, folder: Path | None = None) -> list[float]:
    """Domain adaptation (Section 4.3): fine-tune phi by Eq. 10 so that it overlooks what E, D and the UNet get wrong.

    images: normal, (N, 3, H, W); mean: their latents.  Each is reconstructed from a random level of 10-100 % of T_max.
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

    num_steps = config.adapt_epochs * (len(images) // min(config.batch_size, len(images)))
    return optimise("adaptation", backbone, loss_of_step, num_steps, learning_rate=config.adapt_learning_rate,
                    weight_decay=config.weight_decay, folder=folder)
