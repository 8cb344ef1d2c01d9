"""Images as D3AD takes them: whatever a caller has becomes one Tensor; which few of many; the seed that an image carries."""
import zlib
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad.config import Config


def as_images(images, size: int, split: str) -> Tensor:
    """A folder, a `d3ad.data.Dataset`, a Tensor (N, 3, H, W) in [-1, 1], or a DataLoader, as a Tensor (N, 3, size, size).

    A DataLoader, or any iterable of batches, gives such Tensors, tuples that begin with one, or dicts with one as "image".
    Raises ValueError for another shape, values that aren't finite or lie outside [-1, 1], or no image.
    """
    if isinstance(images, Tensor):
        return _checked(images, size)
    from d3ad import data  # the loaders, which a Tensor does not need
    if isinstance(images, (str, Path)):
        images = data.load("folder", images)
        split = split if getattr(images, split) else "train"  # a flat folder holds one list of images
    if isinstance(images, data.Dataset):
        return images.images(split, size)
    if isinstance(images, Iterable):
        batches = [_images_of(batch) for batch in images]
        images = torch.cat(batches) if batches and all(isinstance(b, Tensor) and b.ndim == 4 for b in batches) else images
    return _checked(images, size)


def _checked(images, size: int) -> Tensor:
    """The images at their size, as float32; ValueError where they aren't any."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise ValueError("images must be a folder, a d3ad.data.Dataset, a Tensor (N, 3, H, W) or a DataLoader of such; "
                         f"got {_describe(images)}")
    if images.is_complex():
        raise ValueError("image values must be real numbers")
    images = images.float()
    if not images.isfinite().all() or images.min() < -1.001 or images.max() > 1.001:
        raise ValueError("image values must be finite and lie in [-1, 1]")
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)
    return images


def _images_of(batch):
    """The images of a DataLoader's batch."""
    if isinstance(batch, dict):
        return batch.get("image")
    return batch[0] if isinstance(batch, (tuple, list)) and batch else batch


def _describe(images) -> str:
    return f"a Tensor {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__


def check_training_images(images: Tensor, config: Config) -> None:
    """Raise ValueError where there are too few images for Algorithm 2."""
    needed = config.k + (not config.include_self)
    if len(images) < needed:
        raise ValueError(f"{len(images)} training images are too few for k = {config.k} neighbours: give at least {needed}, "
                         "or lower k")


def every_nth(images: Tensor, count: int) -> Tensor:
    """`count` images spread evenly over all, all where there are fewer."""
    index = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
    return images[index]


@torch.no_grad()
def in_batches(function: Callable[[Tensor], dict[Hashable, Tensor]], images: Tensor, batch_size: int,
               device: torch.device | str = "cpu") -> dict[Hashable, Tensor]:
    """What `function` says of images (N, ...), a batch of at most `batch_size` at a time: its Tensors, each (N, ...), on the CPU.

    function: takes a batch (B, ...) on `device`, and returns a dict of Tensors (B, ...), with the same keys for each batch.
    Raises ValueError where there is no image.
    """
    if len(images) == 0:
        raise ValueError("there is no image to look at")
    parts = [{key: value.cpu() for key, value in function(batch.to(device)).items()} for batch in images.split(batch_size)]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def image_seed(image: Tensor, seed: int) -> int:
    """A seed that belongs to the image's content, so that neither batch nor file order changes its score."""
    return seed * 2 ** 33 + 2 * zlib.crc32(image.contiguous().numpy().tobytes())  # the odd one behind is free
