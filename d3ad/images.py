"""Some images of many, a batch of them at a time, and the seed that an image carries."""
import zlib
from collections.abc import Callable, Hashable

import torch
from torch import Tensor


def every_nth(images: Tensor, count: int) -> Tensor:
    """`count` images spread evenly over all, all where there are fewer."""
    index = torch.linspace(0, len(images) - 1, min(count, len(images))).round().long()
    return images[index]


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


def image_seed(image: Tensor, seed: int) -> int:
    """A seed that belongs to the image's content, so that neither batch nor file order changes its score.

    Below 2^32, since torch's generator for the CPU takes no more of it, and even: the odd one behind is free.
    """
    return 2 * (zlib.crc32(image.detach().cpu().contiguous().numpy().tobytes(), seed) % 2 ** 31)
