"""What a caller gives as images: whatever it is, it becomes one tensor of known size and range."""
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad import data


class RangeWarning(UserWarning):
    """Image values that may be in another range than they are taken for."""


def as_images(images, size: int, split: str, white: int | None = None,
              value_range: tuple[float, float] | None = None) -> Tensor:
    """A folder, a `d3ad.data.Dataset`, a Tensor (N, 3, H, W), or a DataLoader, as a Tensor (N, 3, size, size) on the
    CPU.

    A folder or Dataset gives its images of `split`: "train", "test" (of a folder every image in it and below), or
    "good", the test images that are known to be good (of a folder, where nothing is known, all).
    A Tensor or numpy array holds values in [-1, 1], or bytes; arrays may have the channels last.  A DataLoader, or any
    iterable of batches, gives such Tensors, tuples that begin with one, or dicts with one as "image".
    white: of 16-bit files, see `d3ad.data.load_image`; None: as the images themselves say.
    value_range: of what isn't read from files, such as (0, 1); None: [-1, 1] for floats, with a `RangeWarning` where no
    value lies below 0, and 0 to 255 for bytes.
    Raises ValueError for another shape, values that aren't finite or lie outside the range, or no image.
    """
    if isinstance(images, (str, Path)):
        images, split = data.open_folder(images, split), "train" if split == "train" else "test"
    # a Dataset, known without its import
    if not isinstance(images, (Tensor, np.ndarray)) and hasattr(images, "fingerprint"):
        asked, dataset = split, images
        images, split = (images.good(), "test") if split == "good" else (images, split)
        if not getattr(images, split):
            what = {"train": "training", "good": "good test"}.get(asked, asked)
            raise ValueError(f"{dataset}: there is no {what} image in it")
        return images.images(split, size, white)
    if isinstance(images, np.ndarray) and images.dtype.kind in "uif":
        images = torch.from_numpy(np.ascontiguousarray(images))
        if images.ndim == 4 and images.shape[1] != 3 and images.shape[3] == 3:
            images = images.permute(0, 3, 1, 2)
    if isinstance(images, Iterable) and not isinstance(images, (Tensor, np.ndarray)):
        batches = [_images_of(batch) for batch in images]
        if batches and all(isinstance(batch, Tensor) and batch.ndim == 4 for batch in batches):
            images = torch.cat(batches)
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or images.numel() == 0:
        raise ValueError("images must be a folder, a d3ad.data.Dataset, a Tensor (N, 3, H, W) or a DataLoader of such; "
                         f"got {_describe(images)}")
    if images.is_complex():
        raise ValueError("image values must be real numbers")
    images = in_range(images.detach().cpu(), value_range)
    if images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(-1, 1)
    return images


def in_range(images: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    """Values (N, 3, H, W) of a known range, or of that which their type says, as float32 in [-1, 1].

    Raises ValueError for values that aren't finite or lie outside the range.
    """
    low, high = value_range or ((0, 255) if images.dtype == torch.uint8 else (-1, 1))
    slack = 0.0005 * (high - low)
    images = images.float()
    finite = all(part.isfinite().all() for part in images.split(256))
    if not finite or images.min() < low - slack or images.max() > high + slack:
        raise ValueError(f"image values must be finite and lie in [{low:g}, {high:g}]")
    if value_range is None and (low, high) == (-1, 1) and images.min() >= 0 and images.max() > images.min():
        warnings.warn("no image value lies below 0: the images are taken as [-1, 1], where 0 is mid-grey; give "
                      "value_range=(0, 1) if white is 1 and black 0, or (-1, 1) if they are right", RangeWarning,
                      stacklevel=4)
    return images if (low, high) == (-1, 1) else (images - low) * (2 / (high - low)) - 1


def _images_of(batch):
    """The images of a DataLoader's batch."""
    if isinstance(batch, dict):
        return batch.get("image")
    return batch[0] if isinstance(batch, (tuple, list)) and batch else batch


def _describe(images) -> str:
    return f"a Tensor {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
