"""SPADE (Cohen and Hoshen 2020, arXiv 2005.02357): nearest normal images, then nearest places in those.

Kept: image score, the mean distance of the globally averaged last features to the K = 50 nearest training images;
map, the distance of each place's features (blocks 1 to 3 side by side, at block 1's places) to the nearest place of
those 50 images' galleries.
Simplified: the deepest features are block 3's, since the shared network ends there; theirs, of a WideResNet-50, are of
its last layer.  Images aren't cropped to their central 224 of 256 pixels.
Images asked: none, nothing is trained.
Reported there: I-AUROC 85.5, P-AUROC 96.5 on MVTec AD.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad.baselines.base import Baseline
from d3ad.baselines.nearest import nearest

K = 50


class Spade(Baseline):
    name = "SPADE"

    def _fit(self, train: Tensor) -> None:
        parts = [self._features(batch.to(self.device)) for batch in train.split(self.config.predict_batch)]
        self.pooled, self.places = (torch.cat(part) for part in zip(*parts))

    @torch.no_grad()
    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Averaged features of the last block (B, C), and all blocks' features at block 1's places (B, h w, D)."""
        blocks = self.backbone(images)
        size = blocks[1].shape[-2:]
        places = torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in blocks.values()], 1)
        return blocks[3].mean((2, 3)), places.flatten(2).transpose(1, 2)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        pooled, places = self._features(images)
        near = torch.cdist(pooled, self.pooled).topk(min(K, len(self.pooled)), largest=False)
        side = round(places.shape[1] ** 0.5)
        coarse_maps = []
        for image, neighbours in zip(places, near.indices):
            gallery = self.places[neighbours].flatten(0, 1)
            coarse_maps.append(nearest(image.contiguous(), gallery)[0].view(side, side))
        return near.values.mean(1), self.finish(torch.stack(coarse_maps)), None
