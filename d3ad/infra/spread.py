"""How vectors spread: their mean and their covariance, a batch at a time, and what makes them white."""
import torch
from torch import Tensor

SHRINKAGE = 0.01  # of the mean variance; docs/feature-distance.md


class Spread:
    """Mean and covariance of the vectors at all places of maps."""

    def __init__(self):
        self.count, self.total, self.squares = 0, 0, 0

    def add(self, maps: Tensor) -> None:
        """Add the B h w vectors of maps (B, C, h, w)."""
        rows = maps.cpu().double().movedim(1, -1).flatten(0, -2)
        self.count += len(rows)
        self.total, self.squares = self.total + rows.sum(0), self.squares + rows.T @ rows

    def whitening(self) -> tuple[Tensor, Tensor]:
        """The mean m (C,), and W (C, C), such that (v - m) W has a variance of at most 1 in every direction.

        W W^T is the inverse of the covariance, to which `SHRINKAGE` of the mean variance is added in each channel: else
        directions in which the vectors hardly differ would outweigh all others.
        """
        mean = self.total / self.count
        covariance = self.squares / self.count - torch.outer(mean, mean)
        covariance.diagonal().add_(SHRINKAGE * covariance.diagonal().mean() + 1e-12)
        return mean.float(), torch.linalg.cholesky(torch.linalg.inv(covariance)).float()
