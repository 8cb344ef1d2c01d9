"""The seed that an image carries, and copies of images that lie a little elsewhere, if asked for in another light."""
import zlib

import torch
import torch.nn.functional as F
from torch import Tensor


def image_seed(image: Tensor, seed: int) -> int:
    """A seed that belongs to the image's content, so that neither batch nor file order changes its score.

    Below 2^32, since torch's generator for the CPU takes no more of it, and even: the odd one behind is free.
    """
    return 2 * (zlib.crc32(image.detach().cpu().contiguous().numpy().tobytes(), seed) % 2 ** 31)


def moved(images: Tensor, seed: int, light: float = 0.0) -> Tensor:
    """Images (N, C, H, W) in [-1, 1], each moved by up to 3 pixels of 128 in both directions, its border repeated, and
    each in a light of its own: black stays black, and all else is up to `light` darker or brighter, 0.2 for a fifth.

    How far and how bright is drawn for each image from its content and the seed.
    """
    pixels, parts = max(round(3 / 128 * images.shape[-1]), 1), []
    for image in images:
        generator = torch.Generator().manual_seed(image_seed(image, seed))
        top, left = torch.randint(0, 2 * pixels + 1, (2,), generator=generator).tolist()
        part = window(image, top, left, pixels)
        if light:
            part = in_light(part, 1 - light + 2 * light * torch.rand((), generator=generator))
        parts.append(part)
    return torch.stack(parts)


def window(image: Tensor, top: int, left: int, reach: int) -> Tensor:
    """An image (C, H, W), its border repeated `reach` pixels wide, from row `top` and column `left`, 0..2 reach, on."""
    wide = F.pad(image[None], (reach,) * 4, mode="replicate")[0]
    return wide[:, top:top + image.shape[1], left:left + image.shape[2]]


def in_light(images: Tensor, gain: float | Tensor) -> Tensor:
    """Images in [-1, 1] whose pixels, counted from black, are `gain` times as bright, white at most."""
    return ((images + 1) * gain - 1).clamp(-1, 1)
