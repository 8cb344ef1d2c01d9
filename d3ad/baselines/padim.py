"""PaDiM (Defard et al. 2021, arXiv 2011.08785): a Gaussian of features at each place.

Kept: blocks 1 to 3, 100 of their channels picked at random, one mean and covariance per place (0.01 added to its
diagonal), Mahalanobis distance.
Simplified: images aren't cropped to their central 224 of 256 pixels; the backbone is the one that all methods here
share (theirs: a ResNet-18, with 448 channels).
Images asked: none, nothing is trained.
Reported there (ResNet-18): P-AUROC 96.7, PRO 90.1 on MVTec AD.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline

CHANNELS, ADDED = 100, 0.01
PORTION = 512  # places at a time


class Padim(Baseline):
    name = "PaDiM"

    def _fit(self, train: Tensor) -> None:
        generator = torch.Generator().manual_seed(self.config.seed)
        self.chosen = torch.randperm(sum(self.backbone.widths.values()), generator=generator)[:CHANNELS].to(self.device)
        places = torch.cat([self._places(batch.to(self.device)) for batch in train.split(self.config.predict_batch)], 1)
        self.mean = places.mean(1, keepdim=True)
        self.inverse = torch.cat([_inverse_covariance(part) for part in (places - self.mean).split(PORTION)])

    @torch.no_grad()
    def _places(self, images: Tensor) -> Tensor:
        """The chosen channels at block 1's places, (h w, B, C)."""
        blocks = self.backbone(images)
        same_size = [F.interpolate(f, blocks[1].shape[-2:], mode="nearest") for f in blocks.values()]
        return torch.cat(same_size, 1)[:, self.chosen].flatten(2).permute(2, 0, 1).contiguous()

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        away = self._places(images) - self.mean
        squared = (away @ self.inverse * away).sum(2).clamp_min(0)  # (h w, B)
        side = round(len(squared) ** 0.5)
        coarse = squared.sqrt().T.reshape(len(images), 1, side, side)
        full = F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
        anomaly_map = maps.smooth(full, self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, None


def _inverse_covariance(away: Tensor) -> Tensor:
    """Of differences from the mean (P, N, C) at P places: (P, C, C)."""
    covariance = away.transpose(1, 2) @ away / (away.shape[1] - 1)
    covariance.diagonal(dim1=1, dim2=2).add_(ADDED)
    return torch.cholesky_inverse(torch.linalg.cholesky(covariance))
