"""The training that both GANs share: a generator and a discriminator at once."""
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.baselines.base import Baseline
from d3ad.baselines.learning import Recipe

# 15 epochs of the 45,000 images of CIFAR-10 without a class would be 675,000; few epochs of few images teach nothing.
RECIPE = Recipe("our choice of 48,000 images; the authors' code: 15 epochs of far larger datasets, batches of 64, Adam "
                "2e-4 with betas of 0.5 and 0.999", batch_size=64, learning_rate=2e-4, images=48_000, ours=True,
                betas=(0.5, 0.999))


class Adversarial(Baseline):
    """A baseline with a generator and a discriminator."""

    recipe = RECIPE
    on_pixels = True

    def train_both(self, generator: nn.Module, discriminator: nn.Module, train: Tensor,
                   generator_loss: Callable[[Tensor, tuple], Tensor], forward: Callable[[Tensor], tuple],
                   discriminate: Callable[[Tensor], Tensor]) -> None:
        """Each step changes both, from the same fake images.

        forward(images): whatever the generator gives, the fake images first.  generator_loss(images, forward(images)).
        discriminate(images): the probability (B,) of being real.
        """
        def loss_of_step(step: int) -> Tensor:
            images = self.batch(train, step)
            given = forward(images)
            discriminator.requires_grad_(False)  # the generator's loss must not train it
            loss = generator_loss(images, given)
            discriminator.requires_grad_(True)
            real, fake = discriminate(images), discriminate(given[0].detach())
            judging = F.binary_cross_entropy(real, torch.ones_like(real)) \
                + F.binary_cross_entropy(fake, torch.zeros_like(fake))
            return loss + 0.5 * judging

        self.optimise(nn.ModuleList([generator, discriminator]), loss_of_step, len(train))
