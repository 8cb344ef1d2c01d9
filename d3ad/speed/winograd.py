"""3 x 3 convolutions with a quarter of the multiplications, for a CPU: Winograd's F(4 x 4, 3 x 3).

Four neighbouring outputs of a row take 4 x 3 = 12 multiplications in the usual way.  Transposed, that is a polynomial
of four coefficients times one of three, whose six coefficients are determined by its values at six points, each of them
one multiplication.  In two dimensions 36 multiplications stand against 144.
(Winograd 1980; for networks: Lavin and Gray 2016, arXiv:1509.09308.)  The result is the same but for rounding.

Around the multiplications lie three linear maps: B of the image's tiles of 6 x 6, G of the weights (once),
A to the output's tiles of 4 x 4.  Where the image is first doubled (nearest neighbour), B takes the tile of the small
image.
"""
from functools import cached_property

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()
from diffusers.models.upsampling import Upsample2D  # noqa: E402

OUT = 4                                                 # outputs of a tile, in each direction
POINTS = (0.0, 2 ** -0.5, -2 ** -0.5, 2 ** 0.5, -2 ** 0.5)  # and infinity; of ten sets tried, the one that rounds least
# about so many tiles at a time, so that what lies between the steps stays in the cache
STRIP = 96
# in x out channels: beyond, reading 36 weights instead of 9 costs more than it saves
MOST_WEIGHTS = 300_000
LEAST_SIZE, LEAST_CHANNELS = 16, 128                    # below, the maps cost more than the saved multiplications


def values_at_points(count: int) -> Tensor:
    """(6, count), float64: a polynomial's coefficients, lowest first, to its values at POINTS and at infinity."""
    rows = [[point ** power for power in range(count)] for point in POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """A (4, 6), G (6, 3) and B (6, 6), float64: A ((G g) * (B d)) correlates six inputs d with three weights g.

    The product of polynomials is inv(V_6) ((V_4 a) * (V_3 g)) with V_n of `values_at_points`; correlation is its
    transpose in a.
    """
    return values_at_points(OUT).T, values_at_points(3), torch.linalg.inv(values_at_points(OUT + 2)).T


class WinogradConv2d(nn.Module):
    """An `nn.Conv2d` of 3 x 3, computed by Winograd's way; behind a doubling of the image where `doubled`.

    It shares the layer's parameters and, from its first use on, holds its weights once more, transformed: for
    prediction only, since no gradient passes and a later change of the parameters isn't seen.
    An image that tiles don't cover, or that is small, takes the usual way.
    """

    def __init__(self, conv: nn.Conv2d, doubled: bool = False):
        super().__init__()
        self.conv, self.doubled = conv, doubled
        a, g, b = matrices()
        if doubled:  # six neighbours of the doubled image are four of the small one
            b = b @ torch.eye(4, dtype=torch.float64)[[0, 1, 1, 2, 2, 3]]
        self.to_points, self.to_outputs, self.of_weights = (torch.kron(m, m).float() for m in (b, a, g))

    @cached_property
    def weights(self) -> Tensor:
        """(36, C, C'): G applied to the layer's weights."""
        rows = self.conv.weight.detach().flatten(2).permute(2, 1, 0)
        return (self.of_weights @ rows.flatten(1)).view(36, *rows.shape[1:])

    @torch.no_grad()
    def forward(self, x: Tensor, output_size=None) -> Tensor:
        """x: (N, C, H, W) to (N, C', H, W), or (N, C', 2 H, 2 W) where doubled; channels-last by Winograd's way.

        output_size: what diffusers passes to a doubling where sizes are odd; then the usual way is taken.
        """
        count, _, height, width = x.shape
        step = OUT // 2 if self.doubled else OUT  # from a tile to the next, in the input
        if output_size is not None or height % step or width % step or min(height, width) * OUT // step < LEAST_SIZE:
            if self.doubled:
                x = F.interpolate(x, size=output_size, scale_factor=2.0 if output_size is None else None,
                                  mode="nearest")
            return self.conv(x)
        x = padded(x.permute(0, 2, 3, 1))
        down, across = height // step, width // step
        result = x.new_empty(count, down, OUT, across, OUT, self.conv.out_channels)
        rows = max(STRIP // max(count * across, 1), 1)
        for top in range(0, down, rows):
            strip = x[:, top * step:min(top + rows, down) * step + 2]
            self._strip(strip, result[:, top:top + rows])
        return result.view(count, down * OUT, across * OUT, -1).permute(0, 3, 1, 2)

    def _strip(self, x: Tensor, result: Tensor) -> None:
        """Some rows of tiles: x (N, rows * step + 2, W + 2, C) into result (N, rows, 4, W / step, 4, C')."""
        count, rows, _, across, _, channels = result.shape
        size, step = (4, OUT // 2) if self.doubled else (6, OUT)
        image, down, right, _ = x.stride()
        tiles = x.as_strided((size, size, count, rows, across, x.shape[3]),
                             (down, right, image, step * down, step * right, 1))
        values = self.to_points @ tiles.reshape(size * size, -1)
        multiplied = torch.bmm(values.view(36, -1, x.shape[3]), self.weights)
        outputs = (self.to_outputs @ multiplied.view(36, -1)).view(OUT, OUT, count, rows, across, channels)
        torch.add(outputs.permute(2, 3, 0, 4, 1, 5), self.conv.bias, out=result)


def padded(x: Tensor) -> Tensor:
    """(N, H, W, C) with a border of one zero, (N, H + 2, W + 2, C); `F.pad` would write zeros everywhere first."""
    count, height, width, channels = x.shape
    result = x.new_empty(count, height + 2, width + 2, channels)
    result[:, ::height + 1], result[:, :, ::width + 1] = 0, 0
    result[:, 1:-1, 1:-1] = x
    return result


def pays(layer: nn.Module) -> bool:
    """Whether Winograd's way is faster for this layer, at the sizes of latents and images that D3AD has."""
    return (isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and layer.stride == (1, 1)
            and layer.padding == (1, 1) and layer.padding_mode == "zeros" and layer.dilation == (1, 1)
            and layer.groups == 1 and layer.bias is not None
            and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
            and layer.in_channels * layer.out_channels <= MOST_WEIGHTS)


def exchange(layer: nn.Module) -> nn.Module | None:
    """The layer by Winograd's way where that `pays`, else None."""
    if pays(layer):
        return WinogradConv2d(layer)
    if isinstance(layer, Upsample2D) and layer.interpolate and layer.norm is None \
            and pays(getattr(layer, "conv", None)):
        return WinogradConv2d(layer.conv, doubled=True)
    return None
