"""How long each baseline's whole training takes for a category of the demo, from the pace of a few steps.

80 images of 128 x 128, the demo's features, networks on pixels at a quarter of their width; minutes of one processor
core, other work on the machine not counted.  `MINUTES` of d3ad/study/comparison.py holds what it prints.
Arguments: names of baselines; none: all that are trained.
"""
import dataclasses
import sys
import time

import torch

from d3ad import Config
from d3ad.baselines import BASELINES, Resources, baseline_class, make
from d3ad.baselines.base import Budget
from d3ad.features import FeatureExtractor

IMAGES, STEPS = 80, (1, 3)
MOST = 4  # images a step of a method on pixels: the pace of an image hardly depends on it


def seconds(name: str, steps: int, config: Config, features: FeatureExtractor, images: torch.Tensor) -> float:
    """Processor seconds of a training of so many steps."""
    size = min(baseline_class(name).recipe.batch_size, len(images))
    baseline = make(name, Resources(config, features, budget=Budget(images=steps * size, width=0.25)))
    started = time.process_time()
    baseline.learn(images)
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    config = Config.profile("demo")
    features = FeatureExtractor(config.backbone, config.backbone_weights).eval()
    images = 2 * torch.rand(IMAGES, 3, config.image_size, config.image_size,
                            generator=torch.Generator().manual_seed(0)) - 1
    for name in sys.argv[1:] or BASELINES:
        kind = baseline_class(name)
        if kind.recipe:
            if kind.on_pixels:
                kind.recipe = dataclasses.replace(kind.recipe, batch_size=min(kind.recipe.batch_size, MOST))
            few, more = (seconds(name, steps, config, features, images) for steps in STEPS)
            size = min(kind.recipe.batch_size, IMAGES)
            of_image = (more - few) / ((STEPS[1] - STEPS[0]) * size)
            print(f'"{name}": {max(of_image, 0) * kind.images_asked(IMAGES) / 60:.1f},', flush=True)


if __name__ == "__main__":
    main()
