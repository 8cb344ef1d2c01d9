"""The training that both GANs share: a generator and a discriminator in turn."""
from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor
from tqdm import tqdm

LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)


def train_in_turn(name: str, generator: nn.Module, discriminator: nn.Module, num_steps: int,
                  batch_of_step: Callable[[int], Tensor], generator_loss: Callable[[Tensor, Tensor], Tensor],
                  forward: Callable[[Tensor], tuple], discriminate: Callable[[Tensor], Tensor]) -> list[float]:
    """Each step first the generator, then the discriminator; returns the generator's losses.

    forward(images): whatever the generator gives, the fake images first.  generator_loss(images, forward(images)).
    discriminate(images): the probability (B,) of being real.
    """
    of_generator, of_discriminator = (torch.optim.Adam(m.parameters(), lr=LEARNING_RATE, betas=BETAS, fused=True)
                                      for m in (generator, discriminator))
    bce, losses = nn.BCELoss(), []
    generator.train()
    discriminator.train()
    for step in tqdm(range(num_steps), desc=name, unit="step", mininterval=2):
        images = batch_of_step(step)
        given = forward(images)
        loss = generator_loss(images, given)
        of_generator.zero_grad(set_to_none=True)
        loss.backward()
        of_generator.step()

        real, fake = discriminate(images), discriminate(given[0].detach())
        judge_loss = 0.5 * (bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)))
        of_discriminator.zero_grad(set_to_none=True)
        judge_loss.backward()
        of_discriminator.step()
        losses.append(loss.item())
    generator.eval()
    discriminator.eval()
    return losses
