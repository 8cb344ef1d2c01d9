"""PatchCore (Roth et al. 2022, arXiv 2106.08265): a coreset of normal patches, distance to the nearest.

Kept: blocks 2 and 3, averaged over 3 x 3; the greedy k-center coreset of 10 % of all patches, chosen in a random
projection to 128 dimensions; the nearest neighbour's distance as map; the image score, the largest of them, lowered
where that neighbour lies in a dense part of the memory (Eq. 7).
Simplified: only that all methods here share one backbone (theirs: WideResNet-50) and one image size (theirs: 224
out of the middle of 256).  The paper doesn't say over how many neighbours Eq. 7 sums: 9, as in anomalib.  "PatchCore
1%" is the same with a coreset of 1 %.
Paper and code: this is the paper.  The authors' code (patchcore-inspection) leaves Eq. 7 out and takes the largest
distance as image score; it pools the nine values of each channel and the channels together into 1024 numbers; its
coreset begins with the patch that is farthest from ten random ones.
Images asked: none, nothing is trained.
Reported there (WideResNet-50): I-AUROC 99.0, P-AUROC 98.1, PRO 93.5 on MVTec AD, with 10 %; 99.0, 98.0, 93.1 with 1 %
(Table 5).  Their code, with 10 %: 99.2, 98.1, 94.4.
"""
import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad.baselines.base import Baseline, patch_features
from d3ad.baselines.nearest import k_center, nearest

PROJECTED, NEIGHBOURS = 128, 9


class PatchCore(Baseline):
    name = "PatchCore"
    share = 0.10

    def _fit(self, train: Tensor) -> None:
        patches = torch.cat([self._patches(batch.to(self.device)).flatten(0, 1)
                             for batch in train.split(self.config.predict_batch)])
        generator = torch.Generator().manual_seed(self.config.seed)
        projection = torch.randn(patches.shape[1], PROJECTED, generator=generator).to(patches) / PROJECTED ** 0.5
        self.memory = patches[k_center(patches @ projection, max(int(self.share * len(patches)), 1), generator)]

    @torch.no_grad()
    def _patches(self, images: Tensor) -> Tensor:
        """(B, h w, D)."""
        return patch_features(self.backbone(images)).flatten(2).transpose(1, 2)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        patches = self._patches(images)
        distances, which = (x.view(patches.shape[:2]) for x in nearest(patches.flatten(0, 1), self.memory))
        side = round(patches.shape[1] ** 0.5)
        return self._reweighted(patches, distances, which), self.finish(distances.view(-1, side, side)), None

    def _reweighted(self, patches: Tensor, distances: Tensor, which: Tensor) -> Tensor:
        """Eq. 7: the largest distance (B,), times 1 minus its share in the softmax over its neighbour's neighbours."""
        image, farthest = torch.arange(len(patches)), distances.argmax(1)
        patch, neighbour = patches[image, farthest], self.memory[which[image, farthest]]
        around = torch.cdist(neighbour, self.memory).topk(min(NEIGHBOURS, len(self.memory)), largest=False).indices
        weights = F.softmax((patch.unsqueeze(1) - self.memory[around]).norm(dim=2), 1)
        return (1 - weights[:, 0]) * distances[image, farthest]


class PatchCore1(PatchCore):
    """The smaller of the paper's two coresets."""

    name = "PatchCore 1%"
    share = 0.01
