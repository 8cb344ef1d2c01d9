"""CFA (Lee, Lee and Song 2022, arXiv 2206.04325): features pulled into spheres around a memory of normal ones;
anomalib's parts.

Kept: the patch descriptor with coordinates, one centre per place (gamma_c = 1, gamma_d = 1), K = 3 attracting and J = 3
repelled neighbours, radius 1e-5, its loss and its map.
Simplified: AdamW with amsgrad off, a falling rate and the profile's budget instead of 30 epochs.
Reported there (WideResNet-50): I-AUROC 99.5, P-AUROC 98.5 on MVTec AD.
"""
import torch
from anomalib.models.image.cfa.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.cfa.loss import CfaLoss
from anomalib.models.image.cfa.torch_model import Descriptor
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, Blocks

NEIGHBOURS, HARD, RADIUS = 3, 3, 1e-5


class CFA(Baseline):
    name = "CFA"
    needs_resnet = True
    epochs, batch_size = 30, 4

    def _fit(self, train: Tensor) -> None:
        self.blocks = Blocks(self.backbone, as_list=True)
        self.descriptor = Descriptor(gamma_d=1, backbone="resnet18").to(self.device)  # as many channels as ResNet-34
        with torch.no_grad():
            parts = [self.descriptor(self.blocks(batch.to(self.device))).sum(0)
                     for batch in train.split(self.config.predict_batch)]
        # (C, h w): the mean image in features, its places the memory
        self.centres = (sum(parts) / len(train)).flatten(1)
        loss = CfaLoss(NEIGHBOURS, HARD, RADIUS)
        loss.radius = loss.radius.detach()  # else its graph is walked twice
        self.optimise(self.descriptor, lambda step: loss(self._distances(self.batch(train, step))[0]), len(train),
                      learning_rate=1e-3, weight_decay=5e-4)
        self.map = AnomalyMapGenerator(NEIGHBOURS, sigma=self.sigma)

    def _distances(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Squared distance (B, h w, M) of each place's features to each centre, and (h, w)."""
        features = self.descriptor(self.blocks(images))
        places = features.flatten(2).transpose(1, 2)
        squared = places.square().sum(2, keepdim=True) + self.centres.square().sum(0) - 2 * places @ self.centres
        return squared.clamp_min(0), tuple(features.shape[-2:])

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        distance, scale = self._distances(images)
        anomaly_map = self.map(distance=distance, scale=scale, image_size=images.shape[-2:]).squeeze(1)
        return maps.image_score(anomaly_map), anomaly_map, None
