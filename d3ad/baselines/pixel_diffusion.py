"""Diffusion on pixels, which AnoDDPM and DiffusionAD share: the network, its schedule, its noise per image."""
import torch
from torch import Tensor

from d3ad import diffusion
from d3ad.baselines.base import Baseline
from d3ad.data.moving import image_seed
from d3ad.training import UNet2DModel, set_heads

MULTIPLES = (1, 1, 2, 2, 4, 4)  # of the base width, a level each: guided-diffusion's for 256 x 256, which both build on


class PixelDiffusion(Baseline):
    """A baseline with a UNet on pixels; a subclass says at which sizes that has attention, and with how many heads."""

    on_pixels = True
    attention: tuple[int, ...] = ()  # sizes of the maps, for images of 256 x 256
    heads = 1

    def make_unet(self, base: int = 128) -> UNet2DModel:
        """epsilon_theta, and the schedule of both papers: 1000 levels, beta from 1e-4 to 0.02."""
        self.alpha_bar = diffusion.alpha_bar(1e-4, 0.02, 1000)
        channels = tuple(self.width(base * multiple, 16) for multiple in MULTIPLES)
        has_attention = [256 >> level in self.attention for level in range(len(channels))]
        unet = UNet2DModel(
            in_channels=3, out_channels=3, block_out_channels=channels, layers_per_block=2, norm_num_groups=16,
            attention_head_dim=channels[-1] // self.heads,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in has_attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(has_attention)))
        set_heads(unet, self.heads)
        return unet.to(self.device, memory_format=torch.channels_last)

    def generators(self, images: Tensor) -> list[torch.Generator]:
        """A stream of its own for each image, whatever batch it comes in."""
        return [torch.Generator().manual_seed(image_seed(image.cpu(), self.config.seed)) for image in images]
