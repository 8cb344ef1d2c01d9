"""Training loops: the autoencoder, the latent diffusion model (Eq. 6), the features, their adaptation (Eq. 10).

Every random draw of a step comes from a generator seeded by (seed, step), so a run that was stopped and resumed ends
with the same weights as one that never stopped.  Autoencoder and diffusion model can be trained by several processes
(`ranks`); the features are trained by all alike, since a batch's normalisation needs the whole batch.
"""
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from d3ad import diffusion, ranks
from d3ad.autoencoders import LatentCodec, autoencoder_loss, make_torchvision_importable
from d3ad.config import Config
from d3ad.features import FeatureExtractor, adaptation_levels, adaptation_loss
from d3ad.files import load_tensors, save_tensors

make_torchvision_importable()
from diffusers import UNet2DModel  # noqa: E402


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
    top, left = torch.randint(0, images.shape[-1] - size + 1, (2,), generator=step_generator(config.seed + 104729, step)).tolist()
    return images[..., top:top + size, left:left + size]


def optimise(name: str, model: nn.Module, loss_of_step: Callable[[int], Tensor], num_steps: int, *, learning_rate: float,
             weight_decay: float = 0.0, ema_decay: float = 0.0, schedule: str = "constant", folder: Path | None = None,
             save_every: int = 200) -> list[float]:
    """AdamW on `loss_of_step(step)` for `num_steps` steps; returns the losses and leaves the trained weights in `model`.

    name: shown beside the progress bar.  schedule: "constant" (the paper's) or "cosine", a short warm-up, then down to
    zero.  ema_decay: above 0, the weights left in `model` are their moving average.
    folder: weights, optimizer and step are kept there, and a run that finds them goes on from them.
    Raises FloatingPointError when the loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()} if ema_decay else None
    losses = _restore(folder, model, optimizer, average) if folder else []
    ranks.check_same(len(losses), folder)
    model.train()
    bar = tqdm(range(len(losses), num_steps), desc=name, initial=len(losses), total=num_steps, unit="step", mininterval=2)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(step, num_steps, schedule)
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = ranks.average(model, loss)
        optimizer.step()
        losses.append(loss.item())
        if not loss.isfinite():
            raise FloatingPointError(f"{name}: the loss became {losses[-1]} at step {step}; lower the learning rate")
        if average is not None:
            decay = min(ema_decay, (step + 1) / (step + 10))  # early weights are forgotten fast
            _average(average, model.state_dict(), decay)
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
        if folder and ranks.is_first() and ((step + 1) % save_every == 0 or step + 1 == num_steps):
            _keep(folder, model, optimizer, average, losses)
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


def _keep(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict | None, losses: list) -> None:
    """Write the state of a run: tensors in one safetensors file, the losses (their number is the step) inside its header."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in (average or {}).items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, state in optimizer.state_dict()["state"].items() for k, v in state.items()}
    save_tensors(folder / "training.safetensors", tensors, {"losses": losses})


def _restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: dict | None) -> list[float]:
    """Load what `_keep` wrote; the losses so far, none where there is nothing."""
    file = folder / "training.safetensors"
    if not file.exists():
        return []
    tensors, about = load_tensors(file)
    parts: dict[str, dict] = {"model": {}, "average": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    model.load_state_dict(parts["model"])
    if average is not None:
        average.update({k: v.to(average[k]) for k, v in parts["average"].items()})
    state: dict[int, dict] = {}
    for key, value in parts["optimizer"].items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    for parameter, moments in optimizer.state.items():  # fused steps walk memory: moments must lie as their parameter does
        moments.update({k: torch.empty_like(parameter).copy_(v) for k, v in moments.items() if v.shape == parameter.shape})
    return about["losses"]


def train_autoencoder(codec: LatentCodec, images: Tensor, config: Config, folder: Path | None = None) -> list[float]:
    """Train the small autoencoder on normal images (N, 3, H, W), and scale its latents to standard deviation 1.

    With `autoencoder_perceptual`, its loss also holds the distance of the config's pretrained features, which stay as they are.
    Raises FileNotFoundError where these can't be had.
    """
    model = codec.model
    distance = perceptual_distance(config, model.device) if config.autoencoder_perceptual else None
    if model.config.linear:
        model.start_linear(images[torch.linspace(0, len(images) - 1, min(len(images), 200)).long()].to(model.device))

    def loss_of_step(step: int) -> Tensor:
        batch = random_crop(images[batch_indices(len(images), config.batch_size, step, config.seed)], step, config)
        shape = (len(batch), config.latent_channels, batch.shape[2] // codec.factor, batch.shape[3] // codec.factor)
        noise = torch.randn(shape, generator=step_generator(config.seed, step))
        mine, noise = (ranks.share(x).to(model.device) for x in (batch, noise))
        return ranks.weighted(autoencoder_loss(model, mine, noise, distance=distance), of=len(batch))

    losses = optimise("autoencoder", model, loss_of_step, config.autoencoder_steps, learning_rate=2e-3, schedule="cosine",
                      folder=folder)
    model.register_to_config(scaling_factor=1.0)
    mean, _ = encode_all(codec, images[:256])
    model.register_to_config(scaling_factor=round(float(1 / mean.std()), 6))
    return losses


def perceptual_distance(config: Config, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A function of decoded images and images: `autoencoder_perceptual` times their cosine distance in phi's `adapt_blocks`.

    It is the distance of Eq. 10, so what the maps compare starts close to zero on normal images.  phi is frozen; gradients reach
    the decoded images only.
    """
    phi = FeatureExtractor(config.backbone, config.backbone_weights).to(device).eval().requires_grad_(False)

    def distance(decoded: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = phi(images)
        found = phi(decoded)
        both = ([features[j] for j in config.adapt_blocks] for features in (wanted, found))
        return config.autoencoder_perceptual * adaptation_loss(*both)

    return distance


def encode_all(codec: LatentCodec, images: Tensor, batch_size: int = 32) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every image's latent, (N, C, h, w) each, on the CPU: each image is encoded once."""
    moments = [codec.encode(batch.to(codec.model.device)) for batch in images.split(batch_size)]
    return tuple(torch.cat(part).cpu() for part in zip(*moments))


def train_diffusion(unet: UNet2DModel, mean: Tensor, std: Tensor, config: Config, folder: Path | None = None) -> list[float]:
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
        index, noise, sample, t = (ranks.share(x).to(mean.device) for x in (index, noise, sample, t))
        z0 = mean[index] + std[index] * sample  # a fresh posterior sample each time, as if encoded anew
        with torch.autocast(mean.device.type, torch.bfloat16, enabled=config.train_precision == "bfloat16"):
            loss = diffusion.simple_loss(model, z0, t, noise, abar)
        return ranks.weighted(loss, of=size)

    return optimise("diffusion", unet, loss_of_step, num_training_steps(config, len(mean)),
                    learning_rate=config.learning_rate, weight_decay=config.weight_decay, ema_decay=config.ema_decay,
                    schedule=config.learning_schedule, folder=folder)


def num_training_steps(config: Config, num_images: int) -> int:
    """`train_steps`, or what `train_epochs` come to."""
    return config.train_steps or config.train_epochs * (num_images // min(config.batch_size, num_images))


def corrupt(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal images (B, 3, H, W) with a patch that doesn't belong there, and where it is, (B, H, W) of 0 and 1.

    One or two blobs, from a hair to a quarter of the image, hold another place of another image, made darker or
    brighter so that it shows on a plain surface too.
    """
    batch, _, height, width = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator).to(images)

    where = torch.stack([_blob(height, width, generator) for _ in range(batch)])
    second = torch.stack([_blob(height, width, generator) for _ in range(batch)])
    where = torch.where(uniform(0, 1).squeeze(1) < 0.4, where.maximum(second), where).unsqueeze(1).to(images)
    shift = torch.randint(height // 8, height - height // 8, (2,), generator=generator).tolist()
    other = images[torch.randperm(batch, generator=generator)].roll(shift, (2, 3))
    patch = torch.lerp(images, other, uniform(0, 1)) + uniform(0.15, 0.8) * uniform(-1, 1).sign()
    opacity = uniform(0.4, 1.0) * where
    return ((1 - opacity) * images + opacity * patch).clamp(-1, 1), where.squeeze(1)


def _blob(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A patch (H, W) of 0 and 1: a stretched, turned ellipse with a rough edge, a fiftieth to half of the image wide."""
    size, aspect, angle, cy, cx = torch.rand(5, generator=generator).tolist()
    y = torch.linspace(0, 1, height).view(-1, 1) - cy
    x = torch.linspace(0, 1, width).view(1, -1) - cx
    turn = torch.tensor(torch.pi * angle)
    long = 0.03 + 0.25 * size ** 2
    short = max(long * (0.1 + 0.9 * aspect), 0.012)
    distance = ((turn.cos() * x + turn.sin() * y) / long) ** 2 + ((turn.cos() * y - turn.sin() * x) / short) ** 2
    rough = F.interpolate(torch.randn(1, 1, 8, 8, generator=generator), (height, width), mode="bicubic").view(height, width)
    return (distance * (1 + 0.4 * rough) < 1).float()


def pretrain(backbone: FeatureExtractor, images: Tensor, config: Config, folder: Path | None = None) -> list[float]:
    """Train phi on normal images alone: tell, at each location, what was pasted in by `corrupt`.

    Stands in for ImageNet's weights where they can't be had.  Not part of the paper.
    """
    heads = nn.ModuleDict({str(j): nn.LazyConv2d(1, 1) for j in config.adapt_blocks})
    device = backbone.mean.device
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for j, head in heads.items():  # their widths, and so their weights, come with the first input
            head.to(device)(backbone(images[:2].to(device))[int(j)])
    both = nn.ModuleDict({"phi": backbone, "heads": heads}).requires_grad_(True)

    def loss_of_step(step: int) -> Tensor:
        batch = random_crop(images[batch_indices(len(images), config.batch_size, step, config.seed)], step, config)
        corrupted, where = (x.to(device) for x in corrupt(batch, step_generator(config.seed, step)))
        features = backbone(corrupted)
        target = {j: F.adaptive_avg_pool2d(where.unsqueeze(1), features[int(j)].shape[-2:]) for j in heads}
        rare = torch.tensor(8.0, device=device)  # pasted places are few: each counts as eight
        return sum(F.binary_cross_entropy_with_logits(head(features[int(j)]), target[j], pos_weight=rare)
                   for j, head in heads.items())

    return optimise("features", both, loss_of_step, config.pretrain_steps, learning_rate=1e-3, weight_decay=0.01,
                    schedule="cosine", folder=folder)


def adapt(backbone: FeatureExtractor, codec: LatentCodec, unet: UNet2DModel, images: Tensor, mean: Tensor, config: Config,
          folder: Path | None = None) -> list[float]:
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
                                      config.spacing, config.omega, generator)
        features, features_hat = backbone(images[index].to(device)), backbone(codec.decode(z_hat))
        return adaptation_loss([features[j] for j in config.adapt_blocks], [features_hat[j] for j in config.adapt_blocks],
                               config.adapt_loss)

    num_steps = config.adapt_epochs * (len(images) // min(config.batch_size, len(images)))
    return optimise("adaptation", backbone, loss_of_step, num_steps, learning_rate=config.adapt_learning_rate,
                    weight_decay=config.weight_decay, folder=folder)
