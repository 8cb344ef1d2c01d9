"""DDAD (Mousakhan, Brox and Tayyub 2023, arXiv 2305.15956): the noised image, denoised under guidance by itself; here
in the latent space of the D3AD beside it.

Kept: noised input, one fixed step for all images, guidance by the input at every step; the map, pixel distance plus
feature distance, both brought to the same maximum.
Simplified: it takes over D3AD's trained autoencoder and diffusion model, where DDAD has one on pixels; so it is D3AD
with noise, a fixed step, DDAD's guidance and a map like DDAD's, and says what those are worth, not what DDAD's network
is.  Tables call it DDAD-like.  Features are adapted as D3AD's are (Eq. 10), one epoch, each image to its own
reconstruction; DDAD guides half of a batch by the other half, adds distances to the features before the adaptation, and
takes four.  The map's maxima are of some training images, theirs of the test batch; there feature distances are of
averages over 3 x 3 places, and the pixels weigh 1 on MVTec AD and 7 on VisA, here always 1.  Step and guidance (ours,
4) are fixed, where DDAD tunes both per category; denoising is deterministic; it doesn't crop to 224 before its metrics.
The backbone is the one that all methods here share (theirs: WideResNet-101).
Step: theirs is 250 of 1000 with beta from 1e-4 to 0.02, which leaves 52 % of the image (alpha-bar); in D3AD's schedule
that is level 200.  Denoising takes 10 steps, as theirs does, whatever D3AD takes: with only two, guidance overshoots.
Images asked: none beside D3AD's; the adaptation takes one pass over the training images.
Reported there: I-AUROC 99.8, P-AUROC 98.1, PRO 92.3 on MVTec AD; 98.9, 97.6, 92.7 on VisA, tuned per category.
"""
import torch
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.data.apart import spread_over

STEP, NUM_STEPS, GUIDANCE = 200, 10, 4.0


class DDAD(Baseline):
    name = "DDAD"
    title = "DDAD-like"
    needs_detector = True

    def fit(self, train: Tensor) -> "DDAD":
        """As the others; its threshold rests on training images, on most of which D3AD's networks were trained."""
        self.learn(train)
        self._set_threshold(spread_over(train, self.config.calibration_images))
        return self

    def _fit(self, train: Tensor) -> None:
        step = min(STEP, self.detector.config.train_t_max)
        self.model = self.detector.readapted(
            train, self.backbone, adapt_epochs=1, omega=1.0, dynamic=False, t_max=step, num_steps=NUM_STEPS,
            guidance=GUIDANCE, standardise=(), feature_distance="cosine", calibration_images=1)
        few = spread_over(train, self.config.calibration_images)
        parts = [self._distances(batch)[:2] for batch in few.split(self.config.predict_batch)]
        pixel, feature = (torch.cat(part) for part in zip(*parts))
        self.ratio = pixel.max() / feature.max()

    def _distances(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        prediction = self.model.predict(images.cpu(), value_range=(-1, 1))
        pixel = (images.cpu() - prediction.reconstruction).abs().mean(1)
        return pixel, prediction.feature_map, prediction.reconstruction

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixel, feature, reconstruction = self._distances(images)
        anomaly_map = maps.smooth(feature * self.ratio + pixel, self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, reconstruction
