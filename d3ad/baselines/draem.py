"""DRAEM (Zavrtanik, Kristan and Skocaj 2021, arXiv 2108.07610): repair pasted textures, then segment what was repaired;
anomalib's networks.

Kept: the reconstructive and the discriminative network side by side, trained with squared error, 1 - SSIM (kornia's
loss is half of that) and focal loss on synthetic anomalies cut out by Perlin noise; batch, rate and its two drops; the
smoothed map's maximum as image score.
Simplified: textures come from the images of the same batch, since DTD isn't at hand, and are augmented by turns, tints
and half as much contrast again, since imgaug isn't among the packages here; training images aren't turned, where theirs
are, three in ten.  Weights start as PyTorch has them, theirs from a normal distribution of 0.02.  The score rests on
the map that the Gaussian smoothed, so that there is one map; theirs has a mean filter of 21 x 21 pixels for the score,
and none for the map.  `baseline_width` narrows both networks.  The method has networks of its own, and no backbone.
Focal loss: of our own (`focal`), with both classes of one weight as in the authors' code.  anomalib passes `alpha=1` to
kornia, which gives normal pixels no weight: then "anomalous everywhere" costs nothing, and training may end there.
Images asked: 700 epochs at 1e-4 (Section 4 and the authors' README), in batches of 8, a fifth of the rate from 80 % and
a fifth of that from 90 % on (authors' train_DRAEM.py).  Section 4 has other drops, to a tenth after 400 and 600 epochs.
Reported there: I-AUROC 98.0, P-AUROC 97.3, AP 68.4 on MVTec AD (Tables 1 and 2).
"""
import torch
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.focal import focal_loss
from d3ad.baselines.learning import Recipe
from d3ad.baselines.noise import pasted
from d3ad.infra.batches import step_generator


class Draem(Baseline):
    name = "DRAEM"
    recipe = Recipe("Section 4: 700 epochs, 1e-4; authors' code, train_DRAEM.py: Adam, batches of 8, drops to a fifth",
                    batch_size=8, learning_rate=1e-4, epochs=700, drops=(0.8, 0.9), factor=0.2)
    on_pixels = True

    def _fit(self, train: Tensor) -> None:
        from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork, ReconstructiveSubNetwork
        from kornia.losses import SSIMLoss
        self.repair = ReconstructiveSubNetwork(base_width=self.width(128))
        self.segment = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=self.width(64))
        networks = nn.ModuleList([self.repair, self.segment]).to(self.device, memory_format=torch.channels_last)
        ssim = SSIMLoss(window_size=11)

        def loss_of_step(step: int) -> Tensor:
            images = self.batch(train, step)
            broken, where = pasted(images, step_generator(self.config.seed, step))
            images, broken = (images + 1) / 2, (broken + 1) / 2  # these networks work in [0, 1]
            repaired = self.repair(broken)
            logits = self.segment(torch.cat([broken, repaired], 1))
            return (repaired - images).square().mean() + 2 * ssim(repaired, images) + focal_loss(logits, where)

        self.optimise(networks, loss_of_step, len(train))

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = (images + 1) / 2
        repaired = self.repair(images)
        anomaly_map = maps.smooth(self.segment(torch.cat([images, repaired], 1)).softmax(1)[:, 1], self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, (2 * repaired - 1).clamp(-1, 1)
