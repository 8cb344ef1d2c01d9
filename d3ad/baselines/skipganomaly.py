"""Skip-GANomaly (Akcay, Atapour-Abarghouei and Breckon 2019, arXiv 1901.08954): a U-shaped generator beside a
discriminator.

Kept: skip connections at every level, the losses (adversarial 1, contextual 40, latent 1), batches of 64 at 2e-4, the
score 0.9 R + 0.1 L of reconstruction and discriminator features.
Paper and code: the weight 40 is the paper's, the default in the authors' code (options.py) is 50.  R is the mean
absolute difference, as in the contextual loss; their code has the squared one.  Their discriminator's loss isn't halved
and has the latent loss in it, too.
Simplified: five halvings whatever the image's size, each with batch normalisation, where theirs go down to 1 x 1, the
first and last without it; weights start as PyTorch has them, theirs from a normal distribution of 0.02; the
discriminator ends in an average over places, and one that wins isn't begun anew.  R and L are scaled by their means
over the training images, where theirs add up as they are; the learning rate stays constant, as it does in their first
15 epochs; `baseline_width` narrows the networks.  Their number is that of the epoch with the best AUROC on test images,
scored with the test batch's statistics in batch normalisation; ours is of the last step, with those of the training.
The map, ours, is the smoothed difference.  The method has networks of its own, and no backbone.
Images asked: 48,000, our choice (`adversarial.RECIPE`), since the paper's epochs are of far larger datasets.
Reported there: AUROC up to 0.95 on classes of CIFAR-10, and on X-ray images; MVTec AD isn't in that paper.
"""
import itertools

import torch
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.adversarial import Adversarial

LEVELS = 5
WEIGHT = 0.9  # of the reconstruction in the score


def _channels(width: int) -> list[int]:
    """Of the image and of each halving of it."""
    return [3] + [width * min(2 ** i, 8) for i in range(LEVELS)]


def _halvings(channels: list[int]) -> list[nn.Module]:
    """A block per level, each halving the image."""
    return [nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))
            for a, b in itertools.pairwise(channels)]


class _Generator(nn.Module):
    """Halves the image LEVELS times and doubles it again; each level sees its twin."""

    def __init__(self, width: int):
        super().__init__()
        channels = _channels(width)
        self.down = nn.ModuleList(_halvings(channels))
        self.up = nn.ModuleList()
        for i in range(LEVELS, 0, -1):
            wide = channels[i] * (1 if i == LEVELS else 2)
            last = [nn.Tanh()] if i == 1 else [nn.BatchNorm2d(channels[i - 1]), nn.ReLU()]
            self.up.append(nn.Sequential(nn.ConvTranspose2d(wide, channels[i - 1], 4, 2, 1, bias=False), *last))

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for down in self.down:
            x = down(x)
            seen.append(x)
        for i, up in enumerate(self.up):
            x = up(x if i == 0 else torch.cat([x, seen[LEVELS - 1 - i]], 1))
        return x


class _Discriminator(nn.Module):
    """Probability of being real (B,), and the features it rests on."""

    def __init__(self, width: int):
        super().__init__()
        channels = _channels(width)
        self.features = nn.Sequential(*_halvings(channels))
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return self.classifier(features).squeeze(1), features


class SkipGANomaly(Adversarial):
    name = "SkipGANomaly"

    def _fit(self, train: Tensor) -> None:
        self.generator = _Generator(self.width(64)).to(self.device)
        self.discriminator = _Discriminator(self.width(64)).to(self.device)

        def generator_loss(images: Tensor, given: tuple) -> Tensor:
            judged, fake_features = self.discriminator(given[0])
            real_features = self.discriminator(images)[1]
            adversarial = nn.functional.binary_cross_entropy(judged, torch.ones_like(judged))
            return adversarial + 40 * (images - given[0]).abs().mean() + (real_features - fake_features).square().mean()

        self.train_both(self.generator, self.discriminator, train, generator_loss,
                        lambda images: (self.generator(images),), lambda images: self.discriminator(images)[0])
        with torch.no_grad():
            parts = [self._parts(batch.to(self.device))[:2] for batch in train.split(self.config.predict_batch)]
        self.scale = [torch.cat(part).mean() for part in zip(*parts)]

    def _parts(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R and L of each image (B,), and the generator's image."""
        fake = self.generator(images)
        real_features, fake_features = (self.discriminator(x)[1] for x in (images, fake))
        return (images - fake).abs().flatten(1).mean(1), (real_features
                                                          - fake_features).square().flatten(1).mean(1), fake

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reconstruction, latent, fake = self._parts(images)
        score = WEIGHT * reconstruction / self.scale[0] + (1 - WEIGHT) * latent / self.scale[1]
        return score, maps.smooth((images - fake).abs().mean(1), self.sigma), fake
