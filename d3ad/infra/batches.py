"""Batches: those of a training, and a function of many images computed a batch at a time."""
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random stream of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(num_images: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Which images step `step` sees: each epoch shuffles anew and drops its last incomplete batch (authors' code)."""
    batch_size = min(batch_size, num_images)
    epoch, position = divmod(step, num_images // batch_size)
    order = torch.randperm(num_images, generator=step_generator(seed + 7919, epoch))
    return order[position * batch_size:(position + 1) * batch_size]


@torch.no_grad()
def in_batches(function: Callable[[Tensor], dict[Hashable, Tensor]], images: Tensor, batch_size: int,
               device: torch.device | str) -> dict[Hashable, Tensor]:
    """What `function` says of images (N, ...), a batch of at most `batch_size` at a time: its Tensors, each (N, ...),
    on the CPU.

    function: takes a batch (B, ...) on `device`, and returns a dict of Tensors (B, ...), with the same keys for each
    batch.
    Raises ValueError where there is no image.
    """
    if len(images) == 0:
        raise ValueError("there is no image to look at")
    parts = [{key: value.cpu() for key, value in function(batch.to(device)).items()}
             for batch in images.split(batch_size)]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
