"""What all baselines share: the interface, the budget of a training, and looking at images in batches."""
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad import maps
from d3ad.baselines import learning
from d3ad.baselines.learning import Recipe
from d3ad.config import Config
from d3ad.data.apart import spread_over
from d3ad.detector import D3AD
from d3ad.features import FeatureExtractor
from d3ad.infra.batches import batch_indices
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()  # anomalib imports torchvision

@dataclass(frozen=True)
class Budget:
    """How much a baseline may spend: training images seen (0: what its paper asks for), minutes of training for a
    method that works on pixels (0: no limit), and the width of such a method's networks.
    """

    images: int = 0
    minutes: float = 0.0
    width: float = 1.0


@dataclass(frozen=True)
class Resources:
    """What a baseline may build on, so that all methods compared share it.

    config: sizes and seed.  backbone: the features before any adaptation, for the methods that use a pretrained
    network.  detector: the trained D3AD of the same images, whose networks DDAD takes over; None where there is none.
    budget: by default the whole of what the papers ask for.  folder: a training's state is kept there, and a stopped
    training resumes from it.
    """

    config: Config
    backbone: FeatureExtractor
    detector: D3AD | None = None
    budget: Budget = Budget()
    folder: Path | None = None


@dataclass
class BaselinePrediction:
    """What a baseline says of N images, on the CPU."""

    score: Tensor                       # (N,) the larger, the more anomalous
    anomaly_map: Tensor                 # (N, H, W)
    reconstruction: Tensor | None = None  # (N, 3, H, W) in [-1, 1], where the method has one
    threshold: float = float("nan")     # of map values: the profile's quantile of normal images' largest


class Baseline:
    """A method that learns from normal images (N, 3, H, W) in [-1, 1] and scores others.

    A subclass sets `name`, a `title` where tables call it something else, and, where it is trained by gradient, the
    `recipe` of its paper; it implements `_fit` and `_look`.
    """

    name = ""
    title = ""
    recipe: Recipe | None = None  # None: nothing is trained by gradient
    on_pixels = False             # learns from the images themselves, not from features that are given
    needs_detector = False        # takes over networks of the D3AD beside it

    def __init__(self, resources: Resources):
        if self.needs_detector and resources.detector is None:
            raise ValueError(f"{self.name} takes over the networks of a trained D3AD: give one in Resources.detector")
        self.config, self.backbone, self.detector = resources.config, resources.backbone, resources.detector
        self.budget, self.folder = resources.budget, resources.folder
        self.device = resources.backbone.mean.device
        self.losses: list[float] = []
        self.images_done = 0
        self.threshold = float("nan")

    @classmethod
    def images_asked(cls, num_images: int) -> int:
        """How many images the method's paper wants to be seen in training; 0 where nothing is trained by gradient."""
        return cls.recipe.images_asked(num_images) if cls.recipe else 0

    def num_steps(self, num_images: int) -> tuple[int, int]:
        """The training steps within the budget, and those that the paper asks for."""
        if self.recipe is None:
            return 0, 0
        size = min(self.recipe.batch_size, num_images)
        asked = math.ceil(self.images_asked(num_images) / size)
        return min(max(self.budget.images // size, 1), asked) if self.budget.images else asked, asked

    def width(self, channels: int, multiple: int = 8) -> int:
        """A layer's channels under the budget's width, a multiple of `multiple`."""
        return max(multiple, round(channels * self.budget.width / multiple) * multiple)

    def fit(self, train: Tensor) -> "Baseline":
        """Learn from normal images (N, 3, H, W) in [-1, 1], and set the threshold of map values.

        What takes no training is first fitted without every fifth image, and these set the threshold: a training
        image is its own nearest neighbour.  What is trained takes a few of its training images.
        """
        if self.recipe is None and len(train) >= 5:
            apart = torch.arange(len(train)) % 5 == 0
            self.learn(train[~apart])
            self._set_threshold(train[apart])
            self.learn(train)
        else:
            self.learn(train)
            self._set_threshold(spread_over(train, self.config.calibration_images))
        return self

    def learn(self, train: Tensor) -> "Baseline":
        """As `fit`, without a threshold."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)  # of weights, and of draws inside anomalib
            self._fit(train)
        return self

    def _set_threshold(self, images: Tensor) -> None:
        scores = maps.image_score(self.predict(images).anomaly_map)
        self.threshold = float(scores.quantile(self.config.threshold_quantile))

    @torch.no_grad()
    def predict(self, images: Tensor) -> BaselinePrediction:
        """Scores and maps; an image's don't depend on the batch that it comes in."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            looks = [self._look(batch.to(self.device)) for batch in images.split(self.config.predict_batch)]
        score, anomaly_map, reconstruction = (None if parts[0] is None else torch.cat([p.cpu() for p in parts])
                                              for parts in zip(*looks))
        return BaselinePrediction(score, anomaly_map, reconstruction, self.threshold)

    def as_if_trained(self, share: float = 1.0) -> float:
        """Have `predict` take as many steps as after a full training, to measure what it costs.

        share: of those steps that are taken, where there are several hundred.  Returns how many times as long as the
        share taken the whole takes; 1 for a method that always takes its few steps.
        """
        return 1.0

    def _fit(self, train: Tensor) -> None:
        raise NotImplementedError

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(score, anomaly_map, reconstruction or None) of a batch."""
        raise NotImplementedError

    def optimise(self, model: nn.Module, loss_of_step: Callable[[int], Tensor], num_images: int,
                 groups: list[dict] | None = None) -> None:
        """Train `model` as the paper's recipe says, as far as the budget goes."""
        steps, of_steps = self.num_steps(num_images)
        self.losses = learning.train(self.name, model, loss_of_step, self.recipe, steps, of_steps, groups, self.folder,
                                     self.budget.minutes if self.on_pixels else 0.0)
        done = len(self.losses) * min(self.recipe.batch_size, num_images)
        self.images_done = min(done, self.images_asked(num_images))  # the last step may go a little beyond

    def index(self, num_images: int, step: int) -> Tensor:
        """Which images a training step sees, as many as the paper takes at once."""
        return batch_indices(num_images, self.recipe.batch_size, step, self.config.seed)

    def batch(self, train: Tensor, step: int) -> Tensor:
        """The images of a training step."""
        return train[self.index(len(train), step)].to(self.device)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Blocks of the shared network for all images, {j: (N, C, h, w)} on the CPU: they never change, so a training
        computes them once.
        """
        with torch.no_grad():
            parts = [self.backbone(batch.to(self.device)) for batch in images.split(self.config.predict_batch)]
            return {j: torch.cat([part[j].cpu() for part in parts]).contiguous() for j in parts[0]}

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian over maps: the 4 pixels at 256 x 256 of PaDiM, SPADE, PatchCore, CFA,
        SimpleNet, RD4AD and RD++, given to all methods here.
        """
        return self.config.sigma_pixels

    def finish(self, anomaly_map: Tensor) -> Tensor:
        """A coarse map (B, h, w) at the images' size, smoothed.

        Its corners come to lie on the image's, as in D3AD's code; several of the authors' codes shift it by half a
        cell there.
        """
        return maps.smooth(maps.upsample(anomaly_map, self.config.image_size), self.sigma)


def patch_features(features: dict[int, Tensor], blocks: tuple[int, ...] = (2, 3)) -> Tensor:
    """PatchCore's locally aware features: blocks averaged over 3 x 3, brought to the first one's size, (B, C, h, w)."""
    pooled = [F.avg_pool2d(features[j], 3, 1, 1) for j in blocks]
    size = pooled[0].shape[-2:]
    return torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in pooled], 1)
