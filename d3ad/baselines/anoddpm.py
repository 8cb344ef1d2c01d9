"""AnoDDPM (Wyatt et al. 2022, CVPR workshops): partial diffusion in pixel space with noise of many scales.

Kept: a UNet on pixels, noise of six octaves instead of white noise both in training and at test, disturbance up to step
250 of 1000, the squared difference as map.
Simplified: 10 deterministic DDIM steps instead of 250 random ones; the UNet takes 2 x 2 pixels as one place of twelve
channels, a quarter of the work; octaves on a lattice instead of simplex noise; `baseline_width` narrows the UNet; the
profile's budget, batches of four at a rate of 1e-3, instead of 3000 epochs at 1e-4; crops where the profile has a
`crop_size`.
Why it is near chance in the demo profile: 300 steps of four images, where 3000 epochs of 80 images are 60,000.  What
remains of the noise after so short a training is larger than most defects; while this was written, P-AUROC on the toy
texture of the tests rose from 0.44 after 150 steps over 0.53 (300) to 0.80 (800).
Reported there: on MRI scans of brains a Dice of 0.383 and an AUC of 0.863; MVTec AD isn't in that paper.
"""
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from d3ad import diffusion, maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.noise import octave_noise
from d3ad.images import image_seed
from d3ad.training import UNet2DModel, step_generator

STEP, SAMPLING_STEPS = 250, 10


class AnoDDPM(Baseline):
    name = "AnoDDPM"
    epochs, batch_size, pace = 3000, 4, 6.0  # a network learns all it knows here

    def _fit(self, train: Tensor) -> None:
        self.alpha_bar = diffusion.alpha_bar(1e-4, 0.02, 1000)
        channels = tuple(self.width(config, 16) for config in (128, 256, 256))
        self.unet = UNet2DModel(
            in_channels=12, out_channels=12, block_out_channels=channels, layers_per_block=1, norm_num_groups=8,
            attention_head_dim=16,
            down_block_types=("DownBlock2D",) * 2 + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * 2)
        self.unet.to(self.device, memory_format=torch.channels_last)

        def loss_of_step(step: int) -> Tensor:
            generator = step_generator(self.config.seed, step)
            images = self.batch(train, step)
            t = torch.randint(1, STEP + 1, (len(images),), generator=generator).to(self.device)
            images, noise = self.crop(step, images, _noise(images, [generator] * len(images)))
            return diffusion.simple_loss(self._predicted_noise, images, t, noise, self.alpha_bar)

        self.optimise(self.unet, loss_of_step, len(train), learning_rate=1e-3)

    def _predicted_noise(self, x: Tensor, t: Tensor) -> Tensor:
        """epsilon_theta of pixels (B, 3, H, W)."""
        return F.pixel_shuffle(self.unet(F.pixel_unshuffle(x, 2), t).sample, 2)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noise = _noise(images, [torch.Generator().manual_seed(image_seed(image.cpu(), self.config.seed))
                                for image in images])
        visited = diffusion.timesteps(torch.full((len(images),), STEP, device=self.device), SAMPLING_STEPS)
        x = diffusion.perturb(images, STEP, self.alpha_bar, omega=1.0, noise=noise)
        for t, t_next in itertools.pairwise(visited):
            abar_t, abar_next = (diffusion.abar_at(self.alpha_bar, level, x) for level in (t, t_next))
            x = diffusion.ddim_step(x, self._predicted_noise(x, t - 1), abar_t, abar_next)
        x = x.clamp(-1, 1)
        anomaly_map = maps.smooth((images - x).square().mean(1), self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, x


def _noise(images: Tensor, generators: list[torch.Generator]) -> Tensor:
    """A noise field per image, the same in all three colours, as simplex noise is laid over them."""
    return torch.cat([octave_noise(1, images.shape[-1], g)
                      for g in generators]).unsqueeze(1).expand(images.shape).to(images)
