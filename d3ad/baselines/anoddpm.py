"""AnoDDPM (Wyatt et al. 2022, CVPR workshops): partial diffusion in pixel space with simplex noise.

Kept: a UNet on pixels (base width 128, attention at 32, 16 and 8), linear schedule of 1000 levels, simplex noise of six
octaves in place of white noise in training and at test, levels up to 800 in training, disturbance up to 250 at test,
undone in 250 random steps, each with simplex noise; the squared difference as map; one image a step at 1e-4.
Simplified: the map is smoothed, and its maximum is the image score, both ours.  All three colours get the same noise,
theirs a field each; the clean image that a step predicts is clipped at the end only, theirs at every step; their code
also has a disturbance of 200, for its metrics.  The noise is two-dimensional, with a field for each level, where theirs
cuts a three-dimensional one, and is scaled to standard deviation 1.  The UNet has the six levels of images of 256
pixels whatever their size, halves and doubles by one convolution, and has 16 groups of normalisation; theirs has five
levels for 128 pixels, residual blocks that halve and double, 32 groups, and last convolutions that start at 0.  A
random step has the posterior's variance, theirs the slightly larger beta.  Gradients aren't clipped, and the last
weights are used, where theirs are averaged, so that one loop trains all methods.  After a shortened training, testing
takes 10 deterministic steps instead of 250; such a result is not ranked.
`baseline_width` narrows the UNet.  The method has a network of its own, and no backbone.
Images asked: 300,000, that is 3000 epochs of 100 images, whatever the size of the training set (authors' code,
args28.json and diffusion_training.py).  That args28.json names attention at 16 and 8 only is without effect there:
nothing hands it to the UNet, whose default is 32, 16 and 8.
Reported there: on MRI scans of brains a Dice of 0.383 and an AUC of 0.863; MVTec AD isn't in that paper.
"""
import itertools

import torch
from torch import Tensor

from d3ad import diffusion, maps
from d3ad.baselines.learning import Recipe
from d3ad.baselines.noise import octave_noise
from d3ad.baselines.pixel_diffusion import PixelDiffusion
from d3ad.infra.batches import step_generator
from d3ad.training import eps_model

TRAINED_TO = 800
FEW_STEPS = 10  # where the budget isn't full


class AnoDDPM(PixelDiffusion):
    name = "AnoDDPM"
    recipe = Recipe("authors' code, args28.json: 3000 epochs (diffusion_training.py: of 100 images), one a step, 1e-4",
                    batch_size=1, learning_rate=1e-4, images=300_000, decoupled=True)
    attention, heads = (32, 16, 8), 2
    steps = 250  # the level up to which a test image is disturbed, and from which it goes back one by one

    def _fit(self, train: Tensor) -> None:
        unet = self.make_unet()
        self.model = eps_model(unet)

        def loss_of_step(step: int) -> Tensor:
            generator = step_generator(self.config.seed, step)
            images = self.batch(train, step)
            t = torch.randint(1, TRAINED_TO + 1, (len(images),), generator=generator).to(self.device)
            noise = _noise(images, [generator] * len(images))
            return diffusion.simple_loss(self.model, images, t, noise, self.alpha_bar)

        self.optimise(unet, loss_of_step, len(train))
        self.is_full = self.images_done >= self.images_asked(len(train))

    def as_if_trained(self, share: float = 1.0) -> float:
        whole, self.is_full = type(self).steps, True
        self.steps = max(round(share * whole), 1)
        return whole / self.steps

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        generators = self.generators(images)
        x = diffusion.perturb(images, self.steps, self.alpha_bar, omega=1.0, noise=_noise(images, generators))
        visited = diffusion.timesteps(torch.full((len(images),), self.steps, device=self.device),
                                      self.steps if self.is_full else FEW_STEPS)
        for t, t_next in itertools.pairwise(visited):
            abar_t, abar_next = (diffusion.abar_at(self.alpha_bar, level, x) for level in (t, t_next))
            eps = self.model(x, t - 1)
            if self.is_full and int(t_next[0]) > 0:
                x = random_step(x, eps, abar_t, abar_next, _noise(images, generators))
            else:
                x = diffusion.ddim_step(x, eps, abar_t, abar_next)
        x = x.clamp(-1, 1)
        anomaly_map = maps.smooth((images - x).square().mean(1), self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, x


def random_step(x: Tensor, eps: Tensor, abar_t: Tensor, abar_next: Tensor, noise: Tensor) -> Tensor:
    """A step of DDPM from one level to the next: the posterior's mean, and its standard deviation times `noise`."""
    beta = 1 - abar_t / abar_next
    spread = (beta * (1 - abar_next) / (1 - abar_t)).sqrt()
    return diffusion.posterior_mean(x, eps, beta, abar_t) + spread * noise


def _noise(images: Tensor, generators: list[torch.Generator]) -> Tensor:
    """A noise field per image, the same in all three colours."""
    return torch.cat([octave_noise(1, images.shape[-1], g)
                      for g in generators]).unsqueeze(1).expand(images.shape).to(images)
