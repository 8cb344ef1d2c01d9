"""DDAD (Mousakhan, Brox and Tayyub 2023, arXiv 2305.15956): the noised image, denoised under guidance by itself.

Kept: noised input, one fixed step for all images, guidance at every step, adapted features, the map: pixel distance
plus feature distance scaled to the same maximum over the training images.
Simplified: it works in the latent space of the D3AD beside it and takes over its trained networks and their adaptation,
where DDAD has a pixel-space (or latent) model of its own; step and guidance are fixed, where DDAD tunes both per
category, and it doesn't crop to 224 before its metrics.
Reported there: I-AUROC 99.8, P-AUROC 98.1, PRO 92.3 on MVTec AD; 98.9, 97.6, 92.7 on VisA, tuned per category.
"""
import torch
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.images import every_nth

GUIDANCE = 4.0


class DDAD(Baseline):
    name = "DDAD"

    def _fit(self, train: Tensor) -> None:
        if self.detector is None:
            raise ValueError("DDAD takes over the networks of a trained D3AD: give one in Resources.detector")
        few = every_nth(train, self.config.calibration_images)
        self.model = self.detector.variant(omega=1.0, dynamic=False, guidance=GUIDANCE, standardise=False,
                                           calibration_images=1)
        parts = [self._distances(batch)[:2] for batch in few.split(self.config.predict_batch)]
        pixel, feature = (torch.cat(part) for part in zip(*parts))
        self.ratio = pixel.max() / feature.max()

    def _distances(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prediction = self.model.predict(images.cpu())
        pixel = (images.cpu() - prediction.reconstruction).abs().mean(1)
        return pixel, prediction.feature_map, prediction.reconstruction

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixel, feature, reconstruction = self._distances(images)
        anomaly_map = maps.smooth(feature * self.ratio + pixel, self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, reconstruction
