"""The blocks of diffusers' UNet and autoencoder for a CPU: the same operations with less memory moved.

What is no longer needed is written over, factors of 1 aren't divided by, tokens lie in memory as matrix multiplications
want them (diffusers hands them over transposed), convolutions of 1 x 1 are matrix multiplications.  Numbers are the
same but for rounding.  For prediction only: no gradient passes.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.infra.torchvision_shim import make_torchvision_importable
from d3ad.speed import winograd
from d3ad.speed.exchange import exchanged

make_torchvision_importable()
from diffusers.models.attention_processor import Attention  # noqa: E402
from diffusers.models.resnet import ResnetBlock2D  # noqa: E402


class Pointwise(nn.Module):
    """An `nn.Conv2d` of 1 x 1 as a matrix multiplication; it shares the layer's parameters."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W) to (N, C', H, W), channels-last."""
        return F.linear(x.permute(0, 2, 3, 1), self.conv.weight.flatten(1), self.conv.bias).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """A `ResnetBlock2D` with the usual time embedding, or none."""

    def __init__(self, block: ResnetBlock2D):
        super().__init__()
        self.norm1, self.norm2, self.time_emb_proj = block.norm1, block.norm2, block.time_emb_proj
        self.conv1, self.conv2 = (exchanged(conv, exchange) for conv in (block.conv1, block.conv2))
        self.shortcut = exchanged(block.conv_shortcut, exchange) if block.conv_shortcut is not None else nn.Identity()
        self.factor = block.output_scale_factor

    @torch.no_grad()
    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W), temb: (N, D) to (N, C', H, W)."""
        hidden = self.conv1(F.silu(self.norm1(x), inplace=True))
        if temb is not None and self.time_emb_proj is not None:
            hidden.add_(self.time_emb_proj(F.silu(temb))[:, :, None, None])
        hidden = self.conv2(F.silu(self.norm2(hidden), inplace=True)).add_(self.shortcut(x))
        return hidden if self.factor == 1 else hidden.div_(self.factor)


class Attended(nn.Module):
    """An `Attention` of an image's places to each other."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.norm, self.heads, self.factor = attention.group_norm, attention.heads, attention.rescale_output_factor
        self.inputs = nn.ModuleList((attention.to_q, attention.to_k, attention.to_v))
        self.output = attention.to_out[0]

    @torch.no_grad()
    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """x: (N, C, H, W) to the same shape, channels-last.  temb: not used, as in the layer that this replaces."""
        count, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(count, -1, channels)
        query, key, value = (layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self.inputs)
        tokens = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        result = self.output(tokens).view(count, height, width, channels).permute(0, 3, 1, 2).add_(x)
        return result if self.factor == 1 else result.div_(self.factor)


def exchange(layer: nn.Module) -> nn.Module | None:
    """The faster layer in place of this one, None where there is none."""
    if isinstance(layer, ResnetBlock2D) and _is_plain_residual(layer):
        return Residual(layer)
    if isinstance(layer, Attention) and _is_plain_attention(layer):
        return Attended(layer)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1 \
            and layer.padding == (0, 0):
        return Pointwise(layer)
    return winograd.exchange(layer)


def _is_plain_residual(block: ResnetBlock2D) -> bool:
    return (block.upsample is None and block.downsample is None and block.time_embedding_norm == "default"
            and not block.skip_time_act and isinstance(block.nonlinearity, nn.SiLU))


def _is_plain_attention(attention: Attention) -> bool:
    return (attention.group_norm is not None and attention.spatial_norm is None and attention.norm_q is None
            and attention.norm_k is None and attention.residual_connection)


def with_fast_blocks(network: nn.Module) -> nn.Module:
    """The same UNet or autoencoder and parameters, with these blocks and, where it pays, Winograd's convolutions."""
    return exchanged(network, exchange)
