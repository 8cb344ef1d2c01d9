"""DiffusionAD (Zhang et al. 2023, arXiv 2303.08730): noise to norm in one step, at two scales, then segmentation.

Kept: the clean image predicted in a single step from a strongly noised one, guided by the prediction from a weakly
noised one; a segmentation network on image and reconstruction, trained on synthetic anomalies with focal and smooth L1
loss.
Simplified: the diffusion model is the latent one of the D3AD beside it, already trained on normal images, so that only
the segmentation network is trained here; textures from other training images instead of DTD; `baseline_width`; the
profile's budget instead of 3000 epochs.
Reported there: I-AUROC 99.7, P-AUROC 98.7, PRO 95.7 on MVTec AD; 98.8, 98.9, 96.0 on VisA.
"""
import torch
from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork
from kornia.losses import FocalLoss
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from d3ad import diffusion, maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.noise import pasted
from d3ad.images import image_seed
from d3ad.training import eps_model, step_generator

WEAK, STRONG = 0.25, 1.0  # both noise levels, as shares of the last step that the diffusion model was trained for


class DiffusionAD(Baseline):
    name = "DiffusionAD"
    epochs, batch_size, pace = 3000, 8, 2.0  # a network learns all it knows here

    def _fit(self, train: Tensor) -> None:
        if self.detector is None:
            raise ValueError("DiffusionAD takes over the diffusion model of a trained D3AD: give one in "
                             "Resources.detector")
        self.segment = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=self.width(64))
        self.segment.to(self.device, memory_format=torch.channels_last)
        focal = FocalLoss(alpha=1, reduction="mean")

        def loss_of_step(step: int) -> Tensor:
            generator = step_generator(self.config.seed, step)
            broken, where = pasted(self.batch(train, step), generator)
            broken, repaired, where = self.crop(step, broken, self._repaired(broken, [generator] * len(broken)), where)
            logits = self.segment(torch.cat([broken, repaired], 1))
            return focal(logits, where.long()) + smooth_l1_loss(logits.softmax(1)[:, 1], where)

        self.optimise(self.segment, loss_of_step, len(train), learning_rate=1e-3)

    @torch.no_grad()
    def _repaired(self, images: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Norm-guided one-step denoising: x0 from the strong noise, its noise corrected by the weak prediction."""
        model, alpha_bar = eps_model(self.detector.unet), self.detector.alpha_bar
        z0, _ = self.detector.codec.encode(images)
        last = min(self.detector.config.train_t_max, 400)
        weak, strong = (torch.full((len(images),), round(share * last), device=self.device) for share in (WEAK, STRONG))

        def predicted(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            z_t = diffusion.perturb(z0, t, alpha_bar, omega=1.0, noise=diffusion.image_noise(z0, generators))
            eps, abar_t = model(z_t, t - 1), diffusion.abar_at(alpha_bar, t, z0)
            return diffusion.predict_x0(z_t, eps, abar_t), z_t, eps, abar_t

        near = predicted(weak)[0]
        _, z_t, eps, abar_t = predicted(strong)
        eps = eps - (1 - abar_t).sqrt() * (abar_t.sqrt() * near + (1 - abar_t).sqrt() * eps - z_t)
        return self.detector.codec.decode(diffusion.predict_x0(z_t, eps, abar_t))

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        repaired = self._repaired(images, [torch.Generator().manual_seed(image_seed(image.cpu(), self.config.seed))
                                           for image in images])
        anomaly_map = maps.smooth(self.segment(torch.cat([images, repaired], 1)).softmax(1)[:, 1], self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, repaired
