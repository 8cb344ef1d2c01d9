"""Random shapes that the baselines train with: noise of several octaves, and patches cut out by it."""
import torch
import torch.nn.functional as F
from torch import Tensor


def octave_noise(count: int, size: int, generator: torch.Generator, octaves: int = 6,
                 persistence: float = 0.8) -> Tensor:
    """Noise (count, size, size) of mean 0 and standard deviation 1: lattices from 2 points
    across upwards, each octave twice as fine.

    Stands in for simplex noise (AnoDDPM: 6 octaves, persistence 0.8); a smooth interpolation of random lattices has the
    same spectrum and needs no further package.
    """
    total = torch.zeros(count, 1, size, size)
    for octave in range(octaves):
        points = min(2 ** (octave + 1), size)
        lattice = torch.randn(count, 1, points + 1, points + 1, generator=generator)
        total += persistence ** octave * F.interpolate(lattice, (size, size), mode="bicubic", align_corners=True)
    total = total.squeeze(1)
    return (total - total.mean((1, 2), keepdim=True)) / total.std((1, 2), keepdim=True)


def pasted(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """DRAEM's synthetic anomalies: images (B, 3, H, W) with blobs of another texture, and their masks (B, H, W).

    The texture is another training image, turned and shifted in colour, where the authors take photographs of textures
    (DTD).  About half of the images stay as they are.
    """
    batch, _, size, _ = images.shape
    coarse = octave_noise(batch, size, generator, octaves=int(torch.randint(2, 5, (1,), generator=generator)),
                          persistence=1.0)
    level = 0.8 + torch.rand(batch, 1, 1, generator=generator)
    chosen = torch.rand(batch, 1, 1, generator=generator) < 0.5
    where = ((coarse > level) & chosen).to(images)
    shuffled = images[torch.randperm(batch, generator=generator)]
    other = shuffled.rot90(int(torch.randint(1, 4, (1,), generator=generator)), (2, 3))
    tint = (torch.rand(batch, 3, 1, 1, generator=generator) - 0.5).to(images)
    opacity = (0.2 + 0.8 * torch.rand(batch, 1, 1, 1, generator=generator)).to(images) * where.unsqueeze(1)
    return torch.lerp(images, (1.5 * other + tint).clamp(-1, 1), opacity), where
