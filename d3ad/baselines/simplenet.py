"""SimpleNet (Liu et al. 2023, arXiv 2303.15140): a small classifier that tells features from features with noise.

Kept: locally averaged features of blocks 2 and 3, a linear adaptor, Gaussian noise in feature space as the only
anomaly, a two-layer discriminator, the hinge loss with margin 0.5, its output as map.
Simplified: features are scaled to standard deviation 1 first and the noise behind the adaptor has a standard deviation
of 0.1 (the authors' 0.015 is tuned to ImageNet's WideResNet-50); one optimizer; the profile's budget instead of 160
epochs.  Reported there (WideResNet-50): I-AUROC 99.6, P-AUROC 98.1 on MVTec AD.
"""
import torch
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, patch_features
from d3ad.training import step_generator

NOISE, MARGIN = 0.1, 0.5


class SimpleNet(Baseline):
    name = "SimpleNet"
    epochs, batch_size, pace = 160, 8, 5.0  # its features never change and are kept

    def _fit(self, train: Tensor) -> None:
        features = torch.cat([self._features(batch.to(self.device))
                              for batch in train.split(self.config.predict_batch)])
        self.mean, self.std = features.mean((0, 2, 3), keepdim=True), features.std((0, 2, 3), keepdim=True) + 1e-6
        features = (features - self.mean) / self.std  # kept: the features never change
        channels = features.shape[1]
        self.adaptor = nn.Conv2d(channels, channels, 1)
        self.discriminator = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels),
                                           nn.LeakyReLU(0.2), nn.Conv2d(channels, 1, 1, bias=False))
        self.model = nn.Sequential(self.adaptor, self.discriminator).to(self.device)

        def loss_of_step(step: int) -> Tensor:
            normal = self.adaptor(self.batch(features, step))
            noise = torch.randn(normal.shape, generator=step_generator(self.config.seed, step)).to(normal)
            good, bad = self.discriminator(torch.cat([normal, normal + NOISE * noise])).chunk(2)
            return (MARGIN - good).clamp_min(0).mean() + (MARGIN + bad).clamp_min(0).mean()

        self.optimise(self.model, loss_of_step, len(train), learning_rate=2e-4, weight_decay=1e-5)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        return patch_features(self.backbone(images))

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        coarse = -self.model((self._features(images) - self.mean) / self.std).squeeze(1)
        return maps.image_score(coarse), self.finish(coarse), None
