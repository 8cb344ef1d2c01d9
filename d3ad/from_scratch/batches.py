"""The images that one step of a training from scratch sees."""
import torch
from torch import Tensor

from d3ad.config import Config
from d3ad.infra.batches import batch_indices, step_generator


def batch_of(images: Tensor, step: int, config: Config) -> Tensor:
    """Images (N, C, H, W) of one step, (B, C, h, w): a window of `crop_size` pixels, at the same place of each;
    convolutions learn as much from it, for less.
    """
    batch = images[batch_indices(len(images), config.batch_size, step, config.seed)]
    size = config.crop_size or batch.shape[-1]
    if size >= batch.shape[-1]:
        return batch
    top, left = torch.randint(0, batch.shape[-1] - size + 1, (2,),
                              generator=step_generator(config.seed + 104729, step)).tolist()
    return batch[..., top:top + size, left:left + size]
