"""DRAEM (Zavrtanik, Kristan and Skocaj 2021, arXiv 2108.07610): repair pasted textures, then segment what was repaired;
anomalib's parts.

Kept: the reconstructive and the discriminative network side by side, trained with squared error, SSIM and focal loss on
synthetic anomalies; the smoothed map's maximum as image score.
Simplified: textures come from other training images instead of DTD (not at hand); `baseline_width` narrows both
networks; the profile's budget at a rate of 1e-3 instead of 700 epochs at 1e-4; convolutions see crops where the profile
has a `crop_size`.
Why it is near chance in the demo profile: 200 steps of 7,000 and more.  With 240 steps of eight images instead of 200
of four, I-AUROC rose from 57 to 73 on weave and from 54 to 81 on plank; the reconstructive network has hardly begun to
copy its input.
Reported there: I-AUROC 98.0, P-AUROC 97.3 on MVTec AD.
"""
import torch
import torch.nn as nn
from anomalib.models.image.draem.loss import DraemLoss
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork, ReconstructiveSubNetwork
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.noise import pasted
from d3ad.training import step_generator


class Draem(Baseline):
    name = "DRAEM"
    epochs, batch_size, pace = 700, 8, 4.0  # two networks learn all they know here

    def _fit(self, train: Tensor) -> None:
        self.repair = ReconstructiveSubNetwork(base_width=self.width(128))
        self.segment = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=self.width(64))
        networks = nn.ModuleList([self.repair, self.segment]).to(self.device, memory_format=torch.channels_last)
        loss = DraemLoss()

        def loss_of_step(step: int) -> Tensor:
            images = self.batch(train, step)
            broken, where = pasted(images, step_generator(self.config.seed, step))
            images, broken, where = self.crop(step, images, broken, where)
            images, broken = (images + 1) / 2, (broken + 1) / 2  # these networks work in [0, 1]
            repaired = self.repair(broken)
            return loss(images, repaired, where.unsqueeze(1), self.segment(torch.cat([broken, repaired], 1)))

        self.optimise(networks, loss_of_step, len(train), learning_rate=1e-3)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = (images + 1) / 2
        repaired = self.repair(images)
        anomaly_map = maps.smooth(self.segment(torch.cat([images, repaired], 1)).softmax(1)[:, 1], self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, (2 * repaired - 1).clamp(-1, 1)
