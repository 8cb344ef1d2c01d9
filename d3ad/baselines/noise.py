"""Random fields that the baselines train with: simplex noise, Perlin noise, and patches cut out by it."""
import itertools

import torch
from torch import Tensor

SKEW, UNSKEW = (3 ** 0.5 - 1) / 2, (3 - 3 ** 0.5) / 6  # of the grid of triangles, in two dimensions


def simplex(x: Tensor, y: Tensor, gradients: Tensor) -> Tensor:
    """Simplex noise (Perlin 2001) at points x, y of one shape, in about [-1, 1].

    gradients: (P, P, 2), the direction at each corner of the grid, repeated every P corners.  Written here since
    packages work point by point, a second and more for an image; this one does all points at once.
    """
    period = len(gradients)
    skewed = (x + y) * SKEW
    i, j = (x + skewed).floor(), (y + skewed).floor()
    x0, y0 = x - i + (i + j) * UNSKEW, y - j + (i + j) * UNSKEW  # from the first corner of its triangle
    lower = (x0 > y0).to(x)
    total = torch.zeros_like(x)
    for di, dj in ((0, 0), (lower, 1 - lower), (1, 1)):
        dx, dy = x0 - di + (di + dj) * UNSKEW, y0 - dj + (di + dj) * UNSKEW
        slope = gradients[(i + di).long() % period, (j + dj).long() % period]
        near = (0.5 - dx * dx - dy * dy).clamp_min(0)
        total += near ** 4 * (slope[..., 0] * dx + slope[..., 1] * dy)
    return 70 * total


def octave_noise(count: int, size: int, generator: torch.Generator, octaves: int = 6, persistence: float = 0.8,
                 wavelength: float = 64.0) -> Tensor:
    """AnoDDPM's noise (count, size, size), with mean 0 and standard deviation 1 in each field.

    Octaves of simplex noise, each twice as fine as the one before and `persistence` times as strong; the first has a
    wavelength of `wavelength` pixels of a 256 x 256 image.  That paper's are 6, 0.8 and 64.
    """
    angle = 2 * torch.pi * torch.rand(64, 64, generator=generator)
    gradients = torch.stack([angle.cos(), angle.sin()], -1)
    y, x = torch.meshgrid(torch.arange(size, dtype=torch.float32), torch.arange(size, dtype=torch.float32),
                          indexing="ij")
    start = 4096 * torch.rand(2, count, octaves, 1, 1, generator=generator)  # a place of its own in an endless field
    total = torch.zeros(count, size, size)
    for octave in range(octaves):
        scale = 2 ** octave * 256 / size / wavelength
        total += persistence ** octave * simplex(x * scale + start[0, :, octave], y * scale + start[1, :, octave],
                                                 gradients)
    return (total - total.mean((1, 2), keepdim=True)) / total.std((1, 2), keepdim=True).clamp_min(1e-6)


def perlin(height: int, width: int, size: int, generator: torch.Generator) -> Tensor:
    """Perlin noise (size, size) on a lattice of height x width cells, in about [-1, 1]."""
    angle = 2 * torch.pi * torch.rand(height + 1, width + 1, generator=generator)
    across = torch.arange(size) / size
    y, x = torch.meshgrid(across * height, across * width, indexing="ij")
    i, j = y.long(), x.long()
    v, u = y - i, x - j  # within the cell
    corners = {(di, dj): angle[i + di, j + dj].cos() * (u - dj) + angle[i + di, j + dj].sin() * (v - di)
               for di, dj in itertools.product((0, 1), repeat=2)}
    fade_v, fade_u = (6 * t ** 5 - 15 * t ** 4 + 10 * t ** 3 for t in (v, u))
    top, bottom = (torch.lerp(corners[di, 0], corners[di, 1], fade_u) for di in (0, 1))
    return 2 ** 0.5 * torch.lerp(top, bottom, fade_v)


def pasted(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """DRAEM's synthetic anomalies: images (B, 3, H, W) with blobs of another texture, and their masks (B, H, W).

    As in the authors' data_loader.py: Perlin noise on a lattice of 1 to 32 cells, cut at 0.5; the image shines through
    the texture by up to 0.8 (the paper: 0.9); half of the images stay as they are.  The noise is turned by quarters,
    theirs by any angle up to 90 degrees.  The texture is a random image of the same batch, now and then the image
    itself, turned, shifted in colour and with half as much contrast again, where the authors take photographs of
    textures (DTD, of which no package holds a copy).
    """
    batch, _, size, _ = images.shape
    where, others = torch.zeros(batch, size, size), torch.zeros_like(images)
    order = torch.randperm(batch, generator=generator)
    for i in range(batch):
        cells = (2 ** torch.randint(0, 6, (2,), generator=generator)).tolist()
        field = perlin(*cells, size, generator).rot90(int(torch.randint(0, 4, (1,), generator=generator)))
        if torch.rand(1, generator=generator) < 0.5:
            where[i] = (field > 0.5).float()
        others[i] = images[order[i]].rot90(int(torch.randint(1, 4, (1,), generator=generator)), (1, 2))
    where = where.to(images)
    tint = (torch.rand(batch, 3, 1, 1, generator=generator) - 0.5).to(images)
    opacity = (1 - 0.8 * torch.rand(batch, 1, 1, 1, generator=generator)).to(images) * where.unsqueeze(1)
    return torch.lerp(images, (1.5 * others + tint).clamp(-1, 1), opacity), where
