"""Validation images that settings are chosen on: good ones, and copies of them with synthetic defects."""
import torch
from torch import Tensor

from d3ad.from_scratch import corrupt


def with_defects(good: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Good images (N, 3, H, W) in [-1, 1], and behind them a copy of each with a synthetic defect (`corrupt`).

    Returns images (2 N, 3, H, W), masks (2 N, H, W) bool and labels (2 N,) int, 1 = defective.
    """
    defective, where = corrupt(good, generator)
    return (torch.cat([good, defective]), torch.cat([torch.zeros_like(where), where]) > 0,
            torch.tensor([0, 1]).repeat_interleave(len(good)))
