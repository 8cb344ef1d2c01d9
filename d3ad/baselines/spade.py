"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357): nearest normal images, then nearest places in those.

Kept: image score, the mean distance of the globally averaged last features to the K = 50 nearest training images;
map, the distance of each place's features (blocks 1 to 3 side by side) to the nearest place of those images' galleries.
Simplified: the deepest features are block 3's, since the shared network ends there; places are compared at block 2's
resolution and against the 10 nearest images instead of 50.  Reported there: I-AUROC 85.5, P-AUROC 96.5 on MVTec AD.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad.baselines.base import Baseline

K, GALLERY = 50, 10


class Spade(Baseline):
    name = "SPADE"

    def _fit(self, train: Tensor) -> None:
        parts = [self._features(batch.to(self.device)) for batch in train.split(self.config.predict_batch)]
        self.pooled, self.places = (torch.cat(part) for part in zip(*parts))

    @torch.no_grad()
    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Averaged features of the last block (B, C), and all blocks' features at block 2's places (B, h w, D)."""
        blocks = self.backbone(images)
        size = blocks[2].shape[-2:]
        places = torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in blocks.values()], 1)
        return blocks[3].mean((2, 3)), places.flatten(2).transpose(1, 2)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        pooled, places = self._features(images)
        near = torch.cdist(pooled, self.pooled).topk(min(K, len(self.pooled)), largest=False)
        side = round(places.shape[1] ** 0.5)
        coarse_maps = []
        for image, neighbours in zip(places, near.indices):
            gallery = self.places[neighbours[:GALLERY]].flatten(0, 1)
            coarse_maps.append(torch.cdist(image, gallery).amin(1).view(side, side))
        return near.values.mean(1), self.finish(torch.stack(coarse_maps)), None
