"""RD4AD, reverse distillation (Deng and Li 2022, arXiv 2201.10703): a decoder that imitates a frozen encoder.

Kept: bottleneck and mirrored decoder of basic blocks, as the authors' code has them for a ResNet-18, in the widths of
the backbone; their batch, rate and momenta; the sum of the blocks' cosine distances as map, smoothed by 4 pixels, its
maximum as image score.
Loss: the cosine of whole flattened blocks, as in their code; in the paper it is a mean over the places' cosines.
Simplified: only that all methods here share one backbone (theirs, at its best: WideResNet-50).  Where its blocks
have values below 0, which no ResNet's have, the decoder's end without a ReLU: it could not imitate them.
Images asked: 200 epochs in batches of 16, Adam 5e-3 with betas of 0.5 and 0.999 (authors' code, main.py).
Reported there (WideResNet-50): I-AUROC 98.5, P-AUROC 97.8, PRO 93.9 on MVTec AD.  The D3AD paper prints a PRO of 70.9
for it on VisA, where others measured far more.
"""
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.learning import Recipe
from d3ad.baselines.reverse import Bottleneck, Decoder, initialise
from d3ad.features import adaptation_loss


class RD4AD(Baseline):
    name = "RD4AD"
    recipe = Recipe("authors' code, main.py: 200 epochs, batches of 16, Adam 5e-3", batch_size=16, learning_rate=5e-3,
                    epochs=200, betas=(0.5, 0.999))

    def _build(self, blocks: dict[int, Tensor]) -> None:
        """Bottleneck and decoder for an encoder that gives these blocks."""
        widths, signed = tuple(self.backbone.widths.values()), any(f.min() < 0 for f in blocks.values())
        self.bottleneck = initialise(Bottleneck(widths)).to(self.device)
        self.decoder = initialise(Decoder(widths, signed)).to(self.device)

    def _fit(self, train: Tensor) -> None:
        blocks = self.features(train)
        self._build(blocks)

        def loss_of_step(step: int) -> Tensor:
            index = self.index(len(train), step)
            seen = [f[index].to(self.device) for f in blocks.values()]
            return adaptation_loss(seen, self._decoded(seen), "flattened")

        self.optimise(nn.ModuleList([self.bottleneck, self.decoder]), loss_of_step, len(train))

    def _decoded(self, blocks: list[Tensor]) -> list[Tensor]:
        return self.decoder(self.bottleneck(blocks))

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        blocks = [f.contiguous() for f in self.backbone(images).values()]
        anomaly_map = maps.feature_map(blocks, self._decoded(blocks), self.config.image_size)
        anomaly_map = maps.smooth(anomaly_map, self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, None
