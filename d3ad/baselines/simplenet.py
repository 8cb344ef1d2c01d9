"""SimpleNet (Liu et al. 2023, arXiv 2303.15140): a small classifier that tells features from features with noise.

Kept: locally averaged features of blocks 2 and 3, a linear adaptor, Gaussian noise of standard deviation 0.015 behind
it as the only anomaly, a discriminator with one hidden layer of 1024 (batch normalisation, leaky ReLU), the hinge loss
with margin 0.5, its output as map; their batch, rates, decay and initial weights.
Simplified: each block keeps its own channels, where theirs pools both to 1536, which for narrower networks would mean
to repeat them; AdamW for the discriminator, too, where theirs is Adam, so that one optimiser serves both; the profile's
image size instead of 288.  Their numbers are those of the epoch, of every fourth, that has the best I-AUROC on test
images; ours are of the last.
Changed: features are scaled to a standard deviation of 0.12, because the noise has a fixed size, chosen for a ResNet's
features (theirs: WideResNet-50, Figure 5).  On bottle, ResNet-18's have 0.12 and stay nearly as they are;
EfficientNet-Lite0's have 3.7, where the noise would be lost.
Images asked: 160 epochs in batches of 8, AdamW 1e-4 for the adaptor, 2e-4 for the discriminator (authors' code, run.sh
and simplenet.py).  The rates stay: the code has a cosine, but run.sh doesn't turn it on.
Reported there (WideResNet-50): I-AUROC 99.6, P-AUROC 98.1 on MVTec AD.
"""
import torch
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, patch_features
from d3ad.baselines.learning import Recipe
from d3ad.infra.batches import step_generator

NOISE, MARGIN, HIDDEN = 0.015, 0.5, 1024
SPREAD = 0.12  # standard deviation of features that NOISE fits


class SimpleNet(Baseline):
    name = "SimpleNet"
    recipe = Recipe("authors' code, run.sh: 40 x 4 epochs, batches of 8; simplenet.py: 1e-4 and 2e-4, decay 1e-5",
                    batch_size=8, learning_rate=2e-4, epochs=160, weight_decay=1e-5, decoupled=True)

    def _fit(self, train: Tensor) -> None:
        features = patch_features(self.features(train))
        self.scale = float(SPREAD / features.std((0, 2, 3)).mean())
        features = self.scale * features
        channels = features.shape[1]
        self.adaptor = nn.Conv2d(channels, channels, 1)
        self.discriminator = nn.Sequential(nn.Conv2d(channels, HIDDEN, 1), nn.BatchNorm2d(HIDDEN), nn.LeakyReLU(0.2),
                                           nn.Conv2d(HIDDEN, 1, 1, bias=False))
        self.model = nn.Sequential(self.adaptor, self.discriminator).to(self.device)
        for module in self.model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)

        def loss_of_step(step: int) -> Tensor:
            normal = self.adaptor(self.batch(features, step))
            noise = torch.randn(normal.shape, generator=step_generator(self.config.seed, step)).to(normal)
            good, bad = self.discriminator(torch.cat([normal, normal + NOISE * noise])).chunk(2)
            return (MARGIN - good).clamp_min(0).mean() + (MARGIN + bad).clamp_min(0).mean()

        groups = [dict(params=list(self.adaptor.parameters()), lr=1e-4, weight_decay=0.01),
                  dict(params=list(self.discriminator.parameters()))]
        self.optimise(self.model, loss_of_step, len(train), groups)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        coarse = -self.model(self.scale * patch_features(self.backbone(images))).squeeze(1)
        return maps.image_score(coarse), self.finish(coarse), None
