"""Some images of many: which normal ones are trained on and which set apart to calibrate, or a few spread over all."""
import torch
from torch import Tensor


def num_trained_on(number: int, share: float) -> int:
    """How many of so many normal images are left to train on where `set_apart` takes a share of them, which is at least
    one image where share > 0.
    """
    return number - max(round(share * number), int(share > 0))


def set_apart(images: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Normal images (N, ...) to train on, and a share of them, spread evenly over all, that calibrates instead.

    share: `calibration_share`.  At 0 all are trained on, and the same images calibrate.
    """
    count = len(images) - num_trained_on(len(images), share)
    if not count:
        return images, images
    held = torch.zeros(len(images), dtype=torch.bool)
    held[torch.linspace(0, len(images) - 1, count + 2).round().long()[1:-1]] = True
    return images[~held], images[held]


def spread_over(images: Tensor, count: int) -> Tensor:
    """`count` images spread evenly over all, all where there are fewer."""
    index = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
    return images[index]
