"""CFA (Lee, Lee and Song 2022, arXiv 2206.04325): features pulled into spheres around a memory of normal ones.

Kept: the patch descriptor, a 1 x 1 convolution that sees coordinates, one centre per place (gamma_c = 1, gamma_d = 1),
K = 3 attracting and J = 3 repelled neighbours, a radius that is learnt from 1e-5 on, their loss, their map, their
optimiser.
Simplified: only that all methods here share one backbone (theirs, at its best: WideResNet-50) and one image size
(theirs: 256, or 224 out of its middle).  For an EfficientNet their code divides each block by its number of channels
and doubles the descriptor's outputs; here it is treated as a ResNet.
Images asked: 30 epochs in batches of 4, AdamW 1e-3 with decay 5e-4 and amsgrad (authors' code, trainer_cfa.py).
Reported there (WideResNet-50): I-AUROC 99.5, P-AUROC 98.5 on MVTec AD, the better of both image sizes for each category
("CFA++"); 99.0 and 98.5 with 256 pixels, 99.3 and 98.2 with 224.  All are those of the epoch that is best on test
images, for each metric; ours are of the last.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, patch_features
from d3ad.baselines.learning import Recipe

NEIGHBOURS, HARD, RADIUS, MARGIN = 3, 3, 1e-5, 0.1


class CFA(Baseline):
    name = "CFA"
    recipe = Recipe("authors' code, trainer_cfa.py: 30 epochs, batches of 4, AdamW 1e-3, decay 5e-4, amsgrad",
                    batch_size=4, learning_rate=1e-3, epochs=30, weight_decay=5e-4, decoupled=True, amsgrad=True)

    def _fit(self, train: Tensor) -> None:
        blocks = self.features(train)
        size, depth = blocks[1].shape[-1], sum(self.backbone.widths.values())
        along = torch.linspace(-1, 1, size, device=self.device)
        self.places = torch.stack(torch.meshgrid(along, along, indexing="ij")).unsqueeze(0)
        self.model = nn.ModuleDict({"descriptor": nn.Conv2d(depth + 2, depth, 1)}).to(self.device)
        self.model.register_parameter("radius", nn.Parameter(torch.tensor(RADIUS, device=self.device)))

        def described(index: Tensor | slice) -> Tensor:
            return self._described({j: f[index].to(self.device) for j, f in blocks.items()})

        with torch.no_grad():  # (C, h w): the mean image in features, its places the memory
            parts = torch.arange(len(train)).split(self.config.predict_batch)
            self.centres = (sum(described(part).sum(0) for part in parts) / len(train)).flatten(1)
        self.optimise(self.model, lambda step: coupled_loss(self._distances(described(self.index(len(train), step))),
                                                            self.model.radius), len(train))

    def _described(self, blocks: dict[int, Tensor]) -> Tensor:
        """Target-oriented features (B, D, h, w): the blocks' patches at block 1's places, described anew."""
        features = patch_features(blocks, (1, 2, 3))
        places = self.places.expand(len(features), -1, -1, -1)
        return self.model["descriptor"](torch.cat([features, places], 1))

    def _distances(self, features: Tensor) -> Tensor:
        """Squared distance (B, h w, M) of each place's features to each centre."""
        places = features.flatten(2).transpose(1, 2)
        squared = places.square().sum(2, keepdim=True) + self.centres.square().sum(0) - 2 * places @ self.centres
        return squared.clamp_min(0)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        features = self._described(self.backbone(images))
        near = self._distances(features).topk(min(NEIGHBOURS, self.centres.shape[1]), largest=False).values.sqrt()
        coarse = (F.softmin(near, -1)[..., 0] * near[..., 0]).view(len(images), *features.shape[-2:])
        anomaly_map = self.finish(coarse)
        return maps.image_score(anomaly_map), anomaly_map, None


def coupled_loss(distances: Tensor, radius: Tensor) -> Tensor:
    """CFA's loss on squared distances (B, P, M): the nearest centres shall lie within the radius, those that follow
    inside it by the margin at most; times 1000, as in the authors' code.
    """
    near = distances.topk(min(NEIGHBOURS + HARD, distances.shape[2]), largest=False).values
    attracted = (near[..., :NEIGHBOURS] - radius ** 2).clamp_min(0).mean()
    repelled = (radius ** 2 - near[..., NEIGHBOURS:] - MARGIN).clamp_min(0).mean()
    return 1000 * (attracted + repelled)
