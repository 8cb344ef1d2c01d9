"""A detector that needs no training, for tests of what is done with files: its map is the image's brightness."""
import time
from types import SimpleNamespace

import torch

from d3ad import Config
from d3ad.data.given import as_images
from d3ad.detector import Prediction
from d3ad.infra.processes import ALONE


class Brightness:
    """What the command line and `d3ad.app` ask of a loaded detector."""

    guarantee, preset, white, team = None, "faithful", None, ALONE
    codec, device = SimpleNamespace(is_small=False), torch.device("cpu")

    def __init__(self, batch: int = 4, threshold: float = 0.6, seconds: float = 0.0, size: int = 16):
        self.config = Config.profile("smoke", image_size=size, predict_batch=batch)
        self.threshold, self.seconds, self.largest = threshold, seconds, 0
        self.calibration = SimpleNamespace(threshold=torch.tensor(threshold, dtype=torch.float64))

    def predict(self, images, normalisation="train", progress=False, value_range=None):
        images = as_images(images, self.config.image_size, "test")
        self.largest = max(self.largest, len(images))
        time.sleep(self.seconds)
        maps = (images.mean(1) + 1) / 2
        return Prediction(score=maps.flatten(1).amax(1), anomaly_map=maps, t_hat=torch.full((len(images),), 20),
                          reconstruction=images,
                          latent_map=maps, feature_map=maps, distance=torch.zeros(len(images)),
                          threshold=self.threshold)

    def with_preset(self, name):
        return self
