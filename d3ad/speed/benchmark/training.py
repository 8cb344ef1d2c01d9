"""One training step of eps_theta in the authors' order and in ours, and what the paper's datasets would take at that
rate.
"""
import torch

from d3ad import diffusion, training
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.networks import config_of, drawn_images, untrained
from d3ad.speed.benchmark.reference import usual_order
from d3ad.speed.timing import clock, keep_freed_memory, memory_peak

IMAGES = {"VisA": 8659, "BTAD": 1799, "MVTec AD": 3629}  # normal training images of all 30 categories
EPOCHS = 300


def measure(size: str, batch: int = 4, rounds: int = 2, full_batch: int = 0) -> list[dict]:
    """One dict per way: seconds per image and step, GFLOP/s of the UNet alone, its share of the limit, the projection.

    optimizer_seconds: of a step, whatever its batch.  AdamW reads weight, gradient and two moments and writes three of
    them, 28 bytes for each of 281 million weights: with few images memory is what limits a step.
    full_batch: above 0, one step of ours with so many images, and its memory (the paper trains with 30).
    """
    config = config_of(size)
    detector = untrained(config, num_reference=config.k)
    device = detector.device
    images = drawn_images(batch, config.image_size).to(device)
    about = machine.describe(device) | dict(batch=batch)
    rates = {dtype: machine.matmul_rate(device, dtype, machine.LARGEST[size])
             for dtype in (torch.float32, torch.bfloat16)}
    z = torch.randn(1, config.latent_channels, *(config.image_size // 8,) * 2, device=device)
    t = torch.ones(1, dtype=torch.long, device=device)
    with machine.flop_counter() as counter, torch.no_grad():
        detector.unet(z, t)
    step_gflop = 3 * counter.get_total_flops() / 1e9  # forward, and twice that backward
    mean, std = detector.codec.encode(images)

    def cached(count: int) -> torch.Tensor:
        repeated = mean[torch.arange(count) % batch]
        return repeated + std[torch.arange(count) % batch] * torch.randn_like(repeated)

    rows, plain = [], None
    ways = {"authors' order": (lambda count: detector.codec.encode(images[torch.arange(count) % batch])[0],
                               torch.float32, False),
            "latents cached": (cached, torch.float32, True), "latents cached, bfloat16": (cached, torch.bfloat16, True)}
    for name, (latents, dtype, ours) in ways.items():
        unet = training.make_unet(config).to(device).train()
        if ours:
            keep_freed_memory()
        else:
            unet, detector.codec = usual_order(unet), usual_order(detector.codec)
        step, optimizer = _step(unet, config, latents, dtype, fused=ours)
        seconds = machine.best_seconds(lambda step=step: step(batch), rounds) / batch
        plain = plain or seconds
        about_way = dict(way=name, precision=str(dtype)[6:], unet_gflop_per_image=step_gflop,
                         matmul_gflops=round(rates[dtype]),
                         optimizer_seconds=machine.best_seconds(optimizer.step, rounds))
        rows.append(about | about_way | _rates(seconds, plain, step_gflop, rates[dtype]))
        if full_batch and ours and dtype == torch.bfloat16:
            with memory_peak(device.type == "cuda") as peak:
                before = peak[0]
                seconds = clock(lambda step=step: step(full_batch))[0] / full_batch
            weights = sum(4 * p.nbytes for p in unet.parameters())  # with gradients and both moments
            rows.append(about | about_way | _rates(seconds, plain, step_gflop, rates[dtype]) | dict(
                way=f"{name}, batch of {full_batch}", batch=full_batch,
                megabytes=round((weights + max(peak[0] - before, 0)) / 1e6)))
    return rows


def _rates(seconds: float, plain: float, gflop: float, limit: float) -> dict:
    """What seconds per image come to."""
    return dict(seconds_per_image=seconds, speedup=plain / seconds, gflops=gflop / seconds,
                share_of_limit=gflop / seconds / limit,
                hours_for_all_datasets=sum(IMAGES.values()) * EPOCHS * seconds / 3600)


def _step(unet, config, latents, dtype, fused: bool):
    """step(count), one optimizer step on so many latents; and the optimizer."""
    abar = diffusion.alpha_bar(config.beta_start, config.beta_end, config.num_timesteps)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay,
                                  fused=fused, foreach=False)

    def step(count: int) -> None:
        z0 = latents(count)
        t = torch.randint(1, config.train_t_max + 1, (count,), device=z0.device)
        with torch.autocast(z0.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = diffusion.simple_loss(training.eps_model(unet), z0, t, torch.randn_like(z0), abar)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step, optimizer
