"""DiffusionAD (Zhang et al. 2023, arXiv 2303.08730): noise to norm in one step, at two scales, then segmentation.

Kept: its own UNet on pixels (base width 128, attention at 32, 16 and 8), trained together with the segmentation network
on DRAEM's synthetic anomalies; images in [0, 1]; noise loss on the images that stay normal; the clean image predicted
in a single step from a weak noise (up to 300 in training, 200 at test), guided by the prediction from a strong one (300
to 1000; 400), which has lost the anomaly; focal loss (five times, gamma 4, both classes with a weight of 0.5) and
smooth L1 loss; the mean of the 50 largest pixels as image score.
Paper and code: this follows the authors' code, DDPM.py and train.py.  Its args1.json names a strongest noise of 600,
which nothing there reads.
Simplified: the UNet differs from theirs as AnoDDPM's does (`anoddpm`); the segmentation network is DRAEM's, with two
classes; textures from other training images instead of DTD, of DRAEM's opacity, and no foreground masks, since these
are not at hand; a mask is drawn once, theirs until it isn't empty, and half of their textures are cut from the image
itself; one rate of 1e-5 for the segmentation network, where theirs swings in a cosine; the map is smoothed;
`baseline_width`.  Their numbers are those of the epoch, of every 50th, that is best on test images; ours are of the
last.  The method has networks of its own, and no backbone.
Images asked: 3000 epochs in batches of 16 (authors' code, args1.json).
Reported there: I-AUROC 99.7, P-AUROC 98.7, PRO 95.7 on MVTec AD; 98.8, 98.9, 96.0 on VisA.
"""
import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from d3ad import diffusion, maps
from d3ad.baselines.focal import focal_loss
from d3ad.baselines.learning import Recipe
from d3ad.baselines.noise import pasted
from d3ad.baselines.pixel_diffusion import PixelDiffusion
from d3ad.infra.batches import step_generator
from d3ad.training import eps_model

BORDER, MOST = 300, 1000  # weak noise below the one, strong noise from there to the other
WEAK, STRONG = 200, 400  # at test
LARGEST = 50             # pixels of the image score


class DiffusionAD(PixelDiffusion):
    name = "DiffusionAD"
    recipe = Recipe("authors' code, args1.json: 3000 epochs, batches of 16, Adam 1e-4 and 1e-5", batch_size=16,
                    learning_rate=1e-4, epochs=3000)
    attention, heads = (32, 16, 8), 4

    def _fit(self, train: Tensor) -> None:
        from anomalib.models.image.draem.torch_model import DiscriminativeSubNetwork
        unet = self.make_unet()
        self.model = eps_model(unet)
        self.segment = DiscriminativeSubNetwork(in_channels=6, out_channels=2, base_width=self.width(64))
        self.segment.to(self.device, memory_format=torch.channels_last)

        def loss_of_step(step: int) -> Tensor:
            generator = step_generator(self.config.seed, step)
            broken, where = pasted(self.batch(train, step), generator)
            broken = (broken + 1) / 2
            weak = torch.randint(1, BORDER + 1, (len(broken),), generator=generator).to(self.device)
            strong = torch.randint(BORDER + 1, MOST + 1, (len(broken),), generator=generator).to(self.device)
            repaired, errors = self._repaired(broken, weak, strong, [generator] * len(broken))
            normal = where.flatten(1).amax(1) == 0
            noise_loss = errors[normal].mean() if normal.any() else 0.0
            logits = self.segment(torch.cat([broken, repaired], 1))
            focal = 0.5 * focal_loss(logits, where, gamma=4)  # 0.5: their weight of either class
            return noise_loss + 5 * focal + smooth_l1_loss(logits.softmax(1)[:, 1], where)

        groups = [dict(params=list(unet.parameters())), dict(params=list(self.segment.parameters()), lr=1e-5)]
        self.optimise(nn.ModuleList([unet, self.segment]), loss_of_step, len(train), groups)

    def _repaired(self, images: Tensor, weak: Tensor, strong: Tensor,
                  generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Norm-guided one-step denoising of images (B, 3, H, W) in [0, 1]: x0 from the weak noise, its noise corrected
        by the prediction from the strong one; and the squared error of both noise predictions, a mean per image (B,).
        """
        def predicted(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            noise = diffusion.image_noise(images, generators)
            x_t = diffusion.perturb(images, t, self.alpha_bar, omega=1.0, noise=noise)
            eps = self.model(x_t, t - 1)
            return x_t, eps, diffusion.abar_at(self.alpha_bar, t, images), (eps - noise).square().flatten(1).mean(1)

        x_t, eps, abar_t, strong_error = predicted(strong)
        normal = diffusion.predict_x0(x_t, eps, abar_t).clamp(-1, 1)
        x_t, eps, abar_t, weak_error = predicted(weak)
        eps = diffusion.guided_eps(eps, x_t, normal, abar_t, guidance=1.0)
        return diffusion.predict_x0(x_t, eps, abar_t).clamp(-1, 1), weak_error + strong_error

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seeded = self.generators(images)
        images = (images + 1) / 2
        weak, strong = (torch.full((len(images),), level, device=self.device) for level in (WEAK, STRONG))
        repaired, _ = self._repaired(images, weak, strong, seeded)
        anomaly_map = self.segment(torch.cat([images, repaired], 1)).softmax(1)[:, 1]
        score = anomaly_map.flatten(1).topk(min(LARGEST, anomaly_map[0].numel()), dim=1).values.mean(1)
        return score, maps.smooth(anomaly_map, self.sigma), 2 * repaired.clamp_min(0) - 1
