"""Before a long fit: try every part of it for a step, and say about how long the whole will take on this machine.

What would stop the fit after hours, such as weights that can't be had or a GPU that is too small, stops it here.
"""
import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from d3ad import from_scratch, training
from d3ad.config import Config
from d3ad.data.apart import num_trained_on
from d3ad.detector import D3AD
from d3ad.infra.processes import ALONE, Alone
from d3ad.speed import presets
from d3ad.speed.timing import clock


@dataclass(frozen=True)
class Forecast:
    """Seconds that each part of a fit will take, by name; with `at_once`, autoencoder and features are trained side by
    side.
    """

    seconds: dict[str, float]
    at_once: bool = False

    @property
    def total(self) -> float:
        hidden = min(self.seconds.get("autoencoder", 0.0), self.seconds.get("features", 0.0)) if self.at_once else 0.0
        return sum(self.seconds.values()) - hidden

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {_duration(value)}" for name, value in self.seconds.items() if value >= 1)
        return f"about {_duration(self.total)} on this machine" + (f" ({parts})" if parts else "")


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.{0 if seconds >= 10 * unit else 1}f} {name}"
    return f"{seconds:.0f} s"


def num_steps(config: Config, num_images: int) -> dict[str, int]:
    """Training steps of each part of a fit on `num_images` images, those that only calibrate included."""
    trained = num_trained_on(num_images, config.calibration_share)  # the others only calibrate
    return dict(autoencoder=config.autoencoder_steps if config.autoencoder_weights == "none" else 0,
                diffusion=training.num_training_steps(config, training.num_latents(num_images, config)),
                features=config.pretrain_steps if config.backbone_weights == "none" else 0,
                adaptation=config.adapt_epochs * training.steps_per_epoch(config, trained))


def rehearse(images: Tensor, config: Config, num_held_out: int = 0, at_once: bool = False,
             team: Alone = ALONE) -> Forecast:
    """Train every part for a few steps, and from their pace say how long `D3AD.fit` will take, and scoring what is held
    out.

    images: (N, 3, H, W) in [-1, 1], H and W the config's image size.  at_once: autoencoder and features will be trained
    side by side.  team: the processes that will share the work.  Takes a dozen steps and leaves nothing behind.
    Raises ValueError for images that don't fit the config, FileNotFoundError for missing weights, as `fit` would.
    """
    few = images[:max(config.batch_size, config.k + 1)]
    short = config.replace(autoencoder_steps=1, train_steps=1, pretrain_steps=min(1, config.pretrain_steps),
                           adapt_epochs=min(1, config.adapt_epochs), calibration_share=0.0, calibration_images=2,
                           calibration_levels=1)
    with contextlib.redirect_stderr(io.StringIO()):  # no bars
        tried = D3AD(short, team, presets.own_networks).fit(few)
        mean, std = tried.codec.encode_all(few)
        train = dict(
            autoencoder=lambda n: from_scratch.train_autoencoder(tried.codec, few, short.replace(autoencoder_steps=n),
                                                                 team=team),
            diffusion=lambda n: training.train_diffusion(tried.unet, mean, std, short.replace(train_steps=n),
                                                         team=team),
            features=lambda n: from_scratch.pretrain(tried.backbone, few, short.replace(pretrain_steps=n)),
            adaptation=lambda n: training.adapt(tried.backbone, tried.codec, tried.unet, few[:config.batch_size],
                                                mean[:config.batch_size], short.replace(adapt_epochs=n)))
        seconds = {name: steps * _pace(tried, train[name]) if steps else 0.0
                   for name, steps in num_steps(config, len(images)).items()}
        batch = few[:config.predict_batch]
        every = (config.calibration_levels or len(tried.conditioning.levels())) if config.dynamic else 1
        levels = (every if config.standardise else 1) + every * (config.feature_distance == "mahalanobis")
        calibrating = len(images) - num_trained_on(len(images), config.calibration_share) or len(images)
        looks = min(config.calibration_images, calibrating) * levels + num_held_out
        seconds["calibration"] = looks / len(batch) * clock(lambda: tried.predict(batch))[0]
    return Forecast(seconds, at_once)


def _pace(tried: D3AD, train: Callable[[int], object], more: int = 3) -> float:
    """Seconds of one step: what `more` steps take beyond what one takes."""
    times = []
    for steps in (1, 1 + more):
        for part in (tried.codec, tried.unet, tried.backbone):
            part.requires_grad_(True)  # a training leaves it off
        times.append(clock(lambda steps=steps: train(steps))[0])
    return max(times[1] - times[0], 0.0) / more
