"""Table 8 at the paper's sizes: what each of the paper's methods costs for one image, and for each of a batch.

256 x 256 pixels, networks of their papers' widths, the paper's ResNet-34 where a method takes given features; random
weights, trained for one step, which changes nothing in what a prediction costs.  Memory banks hold what `TRAINING`
images come to.
"""
import copy
import statistics
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from tqdm import tqdm

from d3ad.baselines import BASELINES, Resources, baseline_class, installed, make, title_of
from d3ad.baselines.base import Budget
from d3ad.detector import D3AD
from d3ad.speed import presets
from d3ad.speed.benchmark import machine
from d3ad.speed.benchmark.networks import config_of, drawn_images, light_features, tiny_autoencoder, untrained
from d3ad.speed.timing import timed

TRAINING = 200  # normal images, about as many as a category of MVTec AD has
STEP_IMAGES = 2  # of the one training step: the widest networks would fill 24 GB with their papers' batches
ADAPTED = 32  # images for DDAD, which adapts features to what D3AD's networks make of them
TIMED_SHARE = 0.008  # of AnoDDPM's 250 steps, which take a quarter of an hour for an image on a CPU


def measure(size: str, batch: int = 16, rounds: int = 1) -> list[dict]:
    """One dict per method and number of images, one and `batch`: seconds per image, images per second, megabytes of
    method and images together.

    rounds: of each, after an image that isn't counted; some methods take minutes for a batch.
    `estimated` is true where not all steps of a prediction were taken, but `TIMED_SHARE` of them.  A baseline whose
    package isn't installed is left out, and a line says so.
    """
    config = config_of(size)
    detector = untrained(config)
    train, images = (drawn_images(count, config.image_size) for count in (TRAINING if size == "paper" else 8, batch))
    budget = Budget(1, width=1.0 if size == "paper" else 0.125)
    about = machine.describe(detector.device) | dict(image_size=config.image_size)
    rows = []
    for name in tqdm([f"D3AD, {preset}" for preset in ("faithful", "fast")] + installed(BASELINES), "methods"):
        ready: list = []

        def build(name: str = name, ready: list = ready) -> Callable[[Tensor], object]:
            ready[:] = ready or _ready(name, detector, train, budget)
            return ready[0]

        costs = {number: timed(build, images[:number], detector.device, rounds, first_images=1)
                 for number in sorted({1, batch}, reverse=True)}
        title = title_of(name) if name in BASELINES else name
        for number, cost in reversed(costs.items()):
            seconds = ready[1] * statistics.median(cost["seconds"])
            rows.append(about | dict(method=title, way=f"{title}, batch of {number}", batch=number,
                                     seconds_per_image=seconds, images_per_second=1 / seconds,
                                     megabytes=round(costs[batch]["megabytes"]) if number == batch else None,
                                     estimated=ready[1] != 1))
    return rows


def _ready(name: str, detector: D3AD, train: Tensor, budget: Budget) -> tuple[Callable[[Tensor], object], float]:
    """A method's predict, and what its seconds are to be multiplied by."""
    if name.startswith("D3AD, "):
        preset = name.removeprefix("D3AD, ")
        return presets.apply(copy.deepcopy(detector), preset, tiny_autoencoder(), light=light_features()).predict, 1
    kind = baseline_class(name)
    own = copy.deepcopy(detector) if kind.needs_detector else None  # copies, so that their memory counts
    resources = Resources(detector.config, own.backbone if own else copy.deepcopy(detector.backbone), own, budget)
    baseline = make(name, resources)
    if baseline.recipe:
        baseline.recipe = replace(baseline.recipe, batch_size=STEP_IMAGES)
    baseline.learn(train[:ADAPTED] if kind.needs_detector else train)
    return baseline.predict, baseline.as_if_trained(TIMED_SHARE)
