"""What all baselines share: the interface, the training loop's budget, and looking at images in batches."""
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from d3ad import maps, training
from d3ad.config import Config
from d3ad.detector import D3AD
from d3ad.features import FeatureExtractor
from d3ad.images import every_nth
from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()  # anomalib imports torchvision

RESNET, RESNET_WIDTHS = "resnet18", (64, 128, 256)  # what anomalib's models are built for
BUDGET_BATCH = 4  # with few steps, small batches learn more for the same work


@dataclass(frozen=True)
class Budget:
    """How much a baseline may spend: training steps, times its pace (0: what its paper asks for), and the width of its
    networks.
    """

    steps: int = 0
    width: float = 1.0


@dataclass(frozen=True)
class Resources:
    """What a baseline may build on, so that all methods compared share it.

    config: sizes and seed.  backbone: the features before any adaptation, for the methods that use a pretrained
    network.  detector: the trained D3AD of the same images, whose autoencoder and diffusion model the diffusion
    baselines take over; None where there is none.  budget: by default the whole of what the papers ask for.
    """

    config: Config
    backbone: FeatureExtractor
    detector: D3AD | None = None
    budget: Budget = Budget()


@dataclass
class BaselinePrediction:
    """What a baseline says of N images, on the CPU."""

    score: Tensor                       # (N,) the larger, the more anomalous
    anomaly_map: Tensor                 # (N, H, W)
    reconstruction: Tensor | None = None  # (N, 3, H, W) in [-1, 1], where the method has one
    threshold: float = float("nan")     # of map values: the profile's quantile of normal images' largest


class Baseline:
    """A method that learns from normal images (N, 3, H, W) in [-1, 1] and scores others.

    A subclass sets `name` and, where it is trained by gradient, `epochs` and `batch_size` of its paper; it implements
    `_fit` and `_look`.

    pace: under a budget it gets so many times the budget's steps: more where a step is cheap or much has to be learnt.
    """

    name = ""
    epochs, batch_size, pace = 0, 1, 1.0
    needs_resnet = False  # its own networks fit a ResNet's blocks only

    def __init__(self, resources: Resources):
        widths = tuple(resources.backbone.widths.values())
        if self.needs_resnet and widths != RESNET_WIDTHS:
            raise ValueError(f"{self.name} is written for a ResNet's blocks of {RESNET_WIDTHS} channels; "
                             f"{resources.backbone.name} has {widths}")
        self.config, self.backbone, self.detector = resources.config, resources.backbone, resources.detector
        self.budget = resources.budget
        self.device = resources.backbone.mean.device
        self.losses: list[float] = []
        self.threshold = float("nan")

    def steps_asked(self, num_images: int) -> int:
        """How many training steps the method's paper asks for; 0 where nothing is trained by gradient."""
        return self.epochs * max(num_images // self.batch_size, 1)

    def num_steps(self, num_images: int) -> int:
        """How many are done: what the paper asks for, or the profile's budget where that is less."""
        asked = self.steps_asked(num_images)
        return min(asked, round(self.pace * self.budget.steps)) if self.budget.steps else asked

    def width(self, channels: int, multiple: int = 8) -> int:
        """A layer's channels under the budget's width, a multiple of `multiple`."""
        return max(multiple, round(channels * self.budget.width / multiple) * multiple)

    def fit(self, train: Tensor) -> "Baseline":
        """Learn from normal images (N, 3, H, W) in [-1, 1], and set the threshold of map values.

        What takes no training is first fitted without every fifth image, and these set the threshold: a training
        image is its own nearest neighbour.  What is trained takes a few of its training images.
        """
        if self.epochs == 0 and len(train) >= 5:
            apart = torch.arange(len(train)) % 5 == 0
            self._seeded_fit(train[~apart])
            self._set_threshold(train[apart])
            self._seeded_fit(train)
        else:
            self._seeded_fit(train)
            self._set_threshold(every_nth(train, self.config.calibration_images))
        return self

    def _seeded_fit(self, train: Tensor) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)  # of weights, and of draws inside anomalib
            self._fit(train)

    def _set_threshold(self, images: Tensor) -> None:
        scores = maps.image_score(self.predict(images).anomaly_map)
        self.threshold = float(scores.quantile(self.config.threshold_quantile))

    @torch.no_grad()
    def predict(self, images: Tensor) -> BaselinePrediction:
        """Scores and maps, of one image at a time as of many."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            looks = [self._look(batch.to(self.device)) for batch in images.split(self.config.predict_batch)]
        score, anomaly_map, reconstruction = (None if parts[0] is None else torch.cat([p.cpu() for p in parts])
                                              for parts in zip(*looks))
        return BaselinePrediction(score, anomaly_map, reconstruction, self.threshold)

    def _fit(self, train: Tensor) -> None:
        raise NotImplementedError

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(score, anomaly_map, reconstruction or None) of a batch."""
        raise NotImplementedError

    def optimise(self, model: nn.Module, loss_of_step: Callable[[int], Tensor], num_images: int, learning_rate: float,
                 weight_decay: float = 0.0) -> None:
        """Train `model`; its learning rate warms up and falls to zero, since budgets are short."""
        self.losses = training.optimise(self.name, model, loss_of_step, self.num_steps(num_images),
                                        learning_rate=learning_rate, weight_decay=weight_decay, schedule="cosine")

    def batch(self, train: Tensor, step: int) -> Tensor:
        """The images of a training step: as many as the paper takes, under a budget at most `BUDGET_BATCH`, for more
        steps.
        """
        size = min(self.batch_size, BUDGET_BATCH) if self.budget.steps else self.batch_size
        return train[training.batch_indices(len(train), size, step, self.config.seed)].to(self.device)

    def crop(self, step: int, *images: Tensor) -> list[Tensor]:
        """A window of `crop_size` pixels at the same place of each tensor (B, C, H, W), drawn anew each step."""
        return [training.random_crop(x, step, self.config) for x in images]

    @property
    def sigma(self) -> float:
        """Standard deviation of the Gaussian over maps: the 4 pixels at 256 x 256 that all these methods use."""
        return self.config.sigma * self.config.image_size / 256

    def finish(self, anomaly_map: Tensor) -> Tensor:
        """A coarse map (B, h, w) at the images' size, smoothed."""
        return maps.smooth(maps.upsample(anomaly_map, self.config.image_size), self.sigma)


class Blocks(nn.Module):
    """The feature extractor as anomalib calls it: a dict of "layer1" ... (or a list), in the usual memory order."""

    def __init__(self, backbone: FeatureExtractor, blocks: tuple[int, ...] = (1, 2, 3), as_list: bool = False):
        super().__init__()
        self.backbone, self.blocks, self.as_list = backbone.requires_grad_(False), blocks, as_list

    def train(self, mode: bool = True) -> "Blocks":
        """Never in training mode: its statistics stay as they are."""
        return super().train(False)

    def forward(self, images: Tensor) -> dict[str, Tensor] | list[Tensor]:
        with torch.no_grad():
            features = self.backbone(images)
        named = {f"layer{j}": features[j].contiguous() for j in self.blocks}
        return list(named.values()) if self.as_list else named


def patch_features(features: dict[int, Tensor], blocks: tuple[int, ...] = (2, 3)) -> Tensor:
    """PatchCore's locally aware features: blocks averaged over 3 x 3, brought to the first one's size, (B, C, h, w)."""
    pooled = [F.avg_pool2d(features[j], 3, 1, 1) for j in blocks]
    size = pooled[0].shape[-2:]
    return torch.cat([F.interpolate(f, size, mode="bilinear", align_corners=False) for f in pooled], 1)
