"""RD++ (Tien et al. 2023, "Revisiting Reverse Distillation"): RD4AD with projections that learn to undo noise.

Kept: a projection per block between encoder and bottleneck, an hourglass of four 3 x 3 convolutions; simplex noise on
the images as pseudo-anomaly; the three losses of the projections with the authors' weights (optimal transport 1,
reconstruction 0.01, contrast 0.1, by 1.11, times 0.2); their batch, rates and momenta.
Simplified: the authors hand the whole batch and the same batch shuffled to geomloss, whose divergence of two equal sets
is zero; here transport is taken between the places of each image and of the next one, averaged to 8 x 8, with a
Sinkhorn of our own.  The noise has their octaves, persistence and wavelength, but lies over the whole image and has one
standard deviation everywhere, theirs lies over a random rectangle of 10 to 32 pixels a side, differs between colours
and is not scaled; images are clipped behind it, theirs aren't.  Transport compares unit vectors, theirs softmaxed ones.
Every step changes the weights, theirs every second one. 200 epochs for each category, where theirs takes 10 to 300 by
category and keeps the epoch that is best on test images.  The backbone is the one that all methods here share; the
decoder is RD4AD's.
Images asked: 200 epochs in batches of 16, Adam 1e-3 for the projections, 5e-3 for the rest (authors' code, main.py).
Reported there (WideResNet-50): I-AUROC 99.4, P-AUROC 98.3, PRO 95.0 on MVTec AD.
"""
import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad.baselines.learning import Recipe
from d3ad.baselines.noise import octave_noise
from d3ad.baselines.rd4ad import RD4AD
from d3ad.features import adaptation_loss
from d3ad.infra.batches import step_generator

STRENGTH = 0.4  # of the noise, in the images' [-1, 1]
PLACES = 8      # along each side, between which transport is taken
WEIGHT = 0.2    # of the projections' losses
MARGIN = 0.5    # of the cosine, above which the contrast counts


class RDPlusPlus(RD4AD):
    name = "RD++"
    recipe = Recipe("authors' code, main.py: 10 to 300 epochs by category (bottle and pill 200), batches of 16, Adam "
                    "1e-3 and 5e-3", batch_size=16, learning_rate=5e-3, epochs=200, betas=(0.5, 0.999))

    def _fit(self, train: Tensor) -> None:
        blocks = self.features(train)
        self._build(blocks)
        self.projections = nn.ModuleList(_projection(c) for c in self.backbone.widths.values()).to(self.device)

        def loss_of_step(step: int) -> Tensor:
            index = self.index(len(train), step)
            clean = [f[index].to(self.device) for f in blocks.values()]
            noisy = self._noisy(train[index].to(self.device), step_generator(self.config.seed, step))
            kept, restored = self._project(clean), self._project(noisy)
            distilled = adaptation_loss(clean, self.decoder(self.bottleneck(kept)), "flattened")
            return distilled + WEIGHT * projection_loss(noisy, restored, kept)

        groups = [dict(params=[*self.bottleneck.parameters(), *self.decoder.parameters()]),
                  dict(params=list(self.projections.parameters()), lr=1e-3)]
        self.optimise(nn.ModuleList([self.bottleneck, self.decoder, self.projections]), loss_of_step, len(train),
                      groups)

    @torch.no_grad()
    def _noisy(self, images: Tensor, generator: torch.Generator) -> list[Tensor]:
        """The encoder's blocks of images with noise."""
        noise = octave_noise(len(images), images.shape[-1], generator, persistence=0.6, wavelength=32).to(images)
        return [f.contiguous() for f in self.backbone((images + STRENGTH * noise.unsqueeze(1)).clamp(-1, 1)).values()]

    def _project(self, features: list[Tensor]) -> list[Tensor]:
        return [project(f) for project, f in zip(self.projections, features)]

    def _decoded(self, blocks: list[Tensor]) -> list[Tensor]:
        return self.decoder(self.bottleneck(self._project(blocks)))


def _projection(channels: int) -> nn.Sequential:
    """An hourglass of 3 x 3 convolutions, as wide as its input at both ends."""
    widths, layers = (channels, channels // 2, channels // 4, channels // 2, channels), []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, 1, 1), nn.InstanceNorm2d(b), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def projection_loss(noisy: list[Tensor], restored: list[Tensor], kept: list[Tensor]) -> Tensor:
    """The three losses of RD++'s projections, a scalar; each argument a list of blocks (B, C, h, w).

    noisy: features of noised images.  restored: their projections.  kept: projections of the same images' features
    without noise.  Transport pulls the projections of normal images together, reconstruction makes the projection undo
    the noise.  The contrast keeps what went in noisy away from what is normal, as far as their cosine is above MARGIN;
    in the authors' first code it pulled both together, a slip that they mended (issue 1 of their repository).
    """
    transport = sum(sinkhorn(_points(f), _points(f.roll(1, 0))) for f in kept)
    restoration = sum((1 - F.cosine_similarity(a, b)).mean() for a, b in zip(restored, kept))
    contrast = sum((F.cosine_similarity(a.flatten(1), b.flatten(1)) - MARGIN).clamp_min(0).mean()
                   for a, b in zip(noisy, kept))
    return (transport + 0.01 * restoration + 0.1 * contrast) / 1.11


def _points(features: Tensor) -> Tensor:
    """Places of feature maps as sets of vectors of length 1: (B, C, h, w) to (B, P, C), at most 8 x 8 places."""
    side = min(PLACES, features.shape[-1])
    return F.normalize(F.adaptive_avg_pool2d(features, side).flatten(2).transpose(1, 2), dim=2)


def sinkhorn(a: Tensor, b: Tensor, epsilon: float = 0.05, rounds: int = 20) -> Tensor:
    """Entropic optimal transport between sets of vectors (B, N, D): the mean squared distance along the plan, a scalar.

    epsilon: of the entropy, in units of the squared distance.
    """
    cost = torch.cdist(a, b).square()
    with torch.no_grad():
        kernel, size = -cost / epsilon, torch.log(torch.tensor(float(a.shape[1])))
        v = torch.zeros_like(cost[:, 0])
        for _ in range(rounds):
            u = -size - torch.logsumexp(kernel + v.unsqueeze(1), 2)
            v = -size - torch.logsumexp(kernel + u.unsqueeze(2), 1)
        plan = (kernel + u.unsqueeze(2) + v.unsqueeze(1)).exp()
    return (plan * cost).sum((1, 2)).mean()
