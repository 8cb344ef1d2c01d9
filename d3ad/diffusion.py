"""Diffusion: the schedule, the forward process and Algorithm 1 (Sections 3 and 4, Eqs. 1-8 and 11).

Time runs as in the paper: t = 0 is the clean latent, t = 1..T are the noised ones, and `alpha_bar[t]` is the product of
the first t alphas, so `alpha_bar[0] == 1`.  Networks are trained on the 0-based index t - 1, as is usual in code; every
call of `eps_model` here passes that index.

Shapes: B images, and behind it any shape of pixels or latents, usually (B, C, H, W).
"""
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EpsModel = Callable[[Tensor, Tensor], Tensor]
Generators = torch.Generator | Sequence[torch.Generator] | None


def betas(beta_start: float = 0.0015, beta_end: float = 0.0195, num_timesteps: int = 1000) -> Tensor:
    """beta_1..beta_T of Eq. 1, linear (Appendix A.1): float64 (T,), each in (0, 1)."""
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"0 < beta_start <= beta_end < 1 must hold; got {beta_start} and {beta_end}")
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps must be at least 1; got {num_timesteps}")
    return torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)


def alpha_bar(beta_start: float = 0.0015, beta_end: float = 0.0195, num_timesteps: int = 1000) -> Tensor:
    """alpha-bar_t = prod_{s<=t} (1 - beta_s) below Eq. 3: float32 (T + 1,), falling from alpha_bar[0] = 1."""
    alphas = 1 - betas(beta_start, beta_end, num_timesteps)
    cumulative = torch.cat([torch.ones(1, dtype=torch.float64), alphas.cumprod(0)])
    return cumulative.float()  # the product is taken in float64: 1000 factors in float32 lose four digits


def noise_one_step(x_previous: Tensor, beta: Tensor | float, noise: Tensor) -> Tensor:
    """x_t from x_{t-1} by Eq. 1; `beta` is beta_t, a number or one per image (B,)."""
    beta = per_image(beta, x_previous)
    return (1 - beta).sqrt() * x_previous + beta.sqrt() * noise


def perturb(x0: Tensor, t: int | Tensor, alpha_bar: Tensor, omega: float = 0.0, noise: Tensor | None = None) -> Tensor:
    """Eq. 11: sqrt(abar_t) x0 + omega sqrt(1 - abar_t) eps.

    omega = 1 is the usual forward process (Eqs. 2, 3); omega = 0 only scales, Algorithm 1's line 4.

    x0: (B, ...).  t: in 0..T, an int or Tensor (B,).  noise: eps, like x0; needed where omega > 0.
    Raises ValueError for t out of range, omega outside [0, 1], or noise missing.
    """
    if not 0 <= omega <= 1:
        raise ValueError(f"omega must lie in [0, 1]; got {omega}")
    abar = abar_at(alpha_bar, t, x0)
    scaled = abar.sqrt() * x0
    if omega == 0:
        return scaled
    if noise is None:
        raise ValueError("omega > 0 needs `noise`; draw it with image_noise() so that it belongs to the image")
    return scaled + omega * (1 - abar).sqrt() * noise


def predict_x0(x_t: Tensor, eps: Tensor, abar_t: Tensor) -> Tensor:
    """f_theta(x_t) below Eq. 7: the clean image that x_t and the predicted noise imply (Eq. 3 solved for x0).

    x_t, eps: (B, ...).  abar_t: from `abar_at`, (B, 1, ...).
    """
    return (x_t - (1 - abar_t).sqrt() * eps) / abar_t.sqrt()


def guided_eps(eps: Tensor, x_t: Tensor, x0: Tensor, abar_t: Tensor, guidance: float) -> Tensor:
    """eps-hat of Eq. 8 (Algorithm 1, lines 6-7): the predicted noise, pulled towards the input by eta = `guidance`.

    eps, x_t, x0: (B, ...).  abar_t: from `abar_at`, (B, 1, ...).
    """
    x_tilde = abar_t.sqrt() * x0 + (1 - abar_t).sqrt() * eps
    return eps - guidance * (1 - abar_t).sqrt() * (x_tilde - x_t)


def ddim_step(x_t: Tensor, eps: Tensor, abar_t: Tensor, abar_next: Tensor, sigma: float = 0.0,
              noise: Tensor | None = None) -> Tensor:
    """Eq. 7 (Algorithm 1, line 8): from t to an earlier step; sigma = 0, the paper's choice, is deterministic.

    x_t, eps, noise: (B, ...).  abar_t, abar_next: from `abar_at`, (B, 1, ...).
    Raises ValueError where sigma > 0 and noise is missing.
    """
    if sigma > 0 and noise is None:
        raise ValueError("sigma > 0 needs `noise`")
    direction = (1 - abar_next - sigma ** 2).clamp_min(0).sqrt()
    x_next = abar_next.sqrt() * predict_x0(x_t, eps, abar_t) + direction * eps
    return x_next if sigma == 0 else x_next + sigma * noise


def posterior_mean(x_t: Tensor, eps: Tensor, beta_t: Tensor | float, abar_t: Tensor) -> Tensor:
    """mu_theta of Eq. 4 in DDPM's noise parameterisation (Ho et al. 2020, Eq. 11).

    x_t, eps: (B, ...).  beta_t: a number or one per image (B,).  abar_t: from `abar_at`, (B, 1, ...).
    """
    beta_t = per_image(beta_t, x_t)
    return (x_t - beta_t / (1 - abar_t).sqrt() * eps) / (1 - beta_t).sqrt()


def simple_loss(eps_model: EpsModel, z0: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Eq. 6 (Eq. 5 where z0 is an image), averaged over all elements.  z0: (B, C, H, W).  t: (B,) in 1..T."""
    z_t = perturb(z0, t, alpha_bar, omega=1.0, noise=noise)
    return (noise - eps_model(z_t, t - 1)).square().mean()


def timesteps(t_hat: Tensor, num_steps: int = 10, spacing: str = "trailing") -> Tensor:
    """The steps that Algorithm 1 visits: long (R + 1, B), falling, from the first step to the clean 0.

    Neighbours in a column are one DDIM step of d = max(t_hat // S, 1).  Images with fewer steps than the others reach
    0 early and stay there.  Where S doesn't divide t_hat, R lies between S and 2 S, as in the authors' code.
    "trailing": t_hat, ..., 2 d, d, 0, as Algorithm 1 says.
    "leading": the authors' grid, 0-based t_hat - d, ..., d, 0 and then clean: the first network call is one step below
    the level to which the input was scaled.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be above 0; got {num_steps}")
    stride = (t_hat // num_steps).clamp_min(1)
    count = (t_hat + stride - 1) // stride
    k = torch.arange(int(count.max()) + 1, device=t_hat.device).unsqueeze(1)
    if spacing == "trailing":
        return (t_hat - k * stride).clamp_min(0)
    if spacing == "leading":
        return torch.where(k < count, (count - 1 - k) * stride + 1, 0)  # 0-based i is the paper's i + 1
    raise ValueError(f'spacing must be "trailing" or "leading"; got {spacing!r}')


def start_step(t_hat: Tensor, num_timesteps: int, spacing: str = "trailing") -> Tensor:
    """The level to which the input is scaled: t_hat, or, in the authors' grid, the 0-based index t_hat."""
    return t_hat if spacing == "trailing" else torch.where(t_hat > 0, (t_hat + 1).clamp_max(num_timesteps), 0)


@torch.no_grad()
def reconstruct(eps_model: EpsModel, z0: Tensor, t_hat: int | Tensor, alpha_bar: Tensor, num_steps: int = 10,
                guidance: float = 0.0, spacing: str = "trailing", omega: float = 0.0,
                generator: Generators = None, callback: Callable[[int, Tensor, Tensor], None] | None = None,
                first_direction: bool = True) -> Tensor:
    """Algorithm 1, lines 4-9: scale z0 to its own level t_hat, then denoise it in S = `num_steps` DDIM steps.

    eps_model: eps_model(z, t) with t the 0-based training index of each image, long Tensor (B,).
    z0: (B, C, H, W).  t_hat: an int or Tensor (B,) in 0..T; may differ per image; 0 returns the image as it is.
    omega, generator: Eq. 11's share of noise, drawn from one generator per image (or from one for all).
    callback: called as callback(i, t, z) after each step; t is the (B,) level that z has reached.
    first_direction: False leaves Eq. 7's direction term out of the first step, as the authors' second sampler does.
    Returns the reconstructed latent, like z0.
    Raises ValueError for t_hat out of range or of another shape, omega outside [0, 1], num_steps below 1, or an unknown
    spacing.
    """
    if len(z0) == 0:
        return z0.clone()
    t_hat = torch.as_tensor(t_hat, device=z0.device).long()
    if t_hat.ndim and t_hat.shape != (len(z0),):
        raise ValueError(f"t_hat must be a number or a Tensor ({len(z0)},), one for each image; got "
                         f"{tuple(t_hat.shape)}")
    t_hat = t_hat.expand(len(z0))
    num_timesteps = len(alpha_bar) - 1
    if t_hat.min() < 0 or t_hat.max() > num_timesteps:
        raise ValueError(f"t_hat must lie in 0..{num_timesteps}; got {int(t_hat.min())}..{int(t_hat.max())}")
    noise = image_noise(z0, generator) if omega > 0 else None
    z = perturb(z0, start_step(t_hat, num_timesteps, spacing), alpha_bar, omega, noise)
    visited = timesteps(t_hat, num_steps, spacing)
    for i, (t, t_next) in enumerate(itertools.pairwise(visited)):
        abar_t, abar_next = abar_at(alpha_bar, t, z), abar_at(alpha_bar, t_next, z)
        eps = eps_model(z, (t - 1).clamp_min(0))
        eps = guided_eps(eps, z, z0, abar_t, guidance)
        if i == 0 and not first_direction:
            z_next = abar_next.sqrt() * predict_x0(z, eps, abar_t)
        else:
            z_next = ddim_step(z, eps, abar_t, abar_next)
        z = torch.where(per_image(t, z) > 0, z_next, z)  # t = 0: already clean
        if callback is not None:
            callback(i, t_next, z)
    return z


def image_noise(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise like x (B, ...), image i from generator i, so that it doesn't depend on the batch."""
    if generator is None or isinstance(generator, torch.Generator):
        device = generator.device if generator is not None else x.device
        return torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype).to(x.device)
    if len(generator) != len(x):
        raise ValueError(f"{len(generator)} generators for {len(x)} images: one each is needed")
    return torch.stack([torch.randn(x.shape[1:], generator=g, device=g.device, dtype=x.dtype) for g in generator]).to(x)


def per_image(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one number per image (B,), shaped to multiply `like` (B, ...)."""
    value = torch.as_tensor(value, device=like.device)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def abar_at(alpha_bar: Tensor, t: int | Tensor, like: Tensor) -> Tensor:
    """alpha-bar at t (an int or (B,)), in the type of `like` and shaped to multiply it.  ValueError for t outside 0..T.
    """
    t = torch.as_tensor(t, device=like.device)
    if t.numel() and (t.min() < 0 or t.max() >= len(alpha_bar)):
        raise ValueError(f"t must lie in 0..{len(alpha_bar) - 1}; got {int(t.min())}..{int(t.max())}")
    return per_image(alpha_bar.to(like.device, like.dtype)[t], like)
