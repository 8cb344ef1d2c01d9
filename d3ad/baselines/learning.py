"""How the baselines are trained: what each paper asks for, and one loop that can be stopped and resumed."""
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from tqdm import tqdm

from d3ad.infra.checkpoint import keep_training, restore_training
from d3ad.infra.files import read_json, write_whole

KEEP_EVERY = 60.0  # seconds between two states on disk


@dataclass(frozen=True)
class Recipe:
    """What a method's paper, or its authors' code, asks for.

    source: where that stands.  epochs: passes over the training images; images: how many are seen in all, where the
    size of the training set doesn't matter.  ours: the number of images is this repository's choice, not the paper's.
    decoupled: weight decay as in AdamW.  drops: shares of the training after which the learning rate is multiplied by
    `factor`.
    """

    source: str
    batch_size: int
    learning_rate: float
    epochs: int = 0
    images: int = 0
    ours: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decoupled: bool = False
    amsgrad: bool = False
    drops: tuple[float, ...] = ()
    factor: float = 1.0

    def images_asked(self, num_images: int) -> int:
        """How many images are to be seen, of a training set of `num_images`."""
        return self.images or self.epochs * num_images

    def rate(self, share: float) -> float:
        """The learning rate after a share of the training in [0, 1), in parts of the first one."""
        return self.factor ** sum(share >= drop for drop in self.drops)

    def optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """Adam or AdamW on groups of parameters; a group may have a learning rate or decay of its own."""
        kind = torch.optim.AdamW if self.decoupled else torch.optim.Adam
        return kind(groups, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay,
                    amsgrad=self.amsgrad)


def train(name: str, model: nn.Module, loss_of_step: Callable[[int], Tensor], recipe: Recipe, num_steps: int,
          of_steps: int, groups: list[dict] | None = None, folder: Path | None = None,
          minutes: float = 0.0) -> list[float]:
    """Minimise `loss_of_step(step)` for `num_steps` steps, the first of the `of_steps` that the recipe asks for.

    model: holds all that learns, and is left ready to predict.  groups: its parameters, where not all learn at one
    rate.  folder: the state is kept there, and a call that finds one goes on from it, with the same end.  minutes: no
    step is begun after so many minutes of training, those before an interruption included; 0: no limit.
    Returns the losses, one for each step done.  Raises FloatingPointError where the loss is no longer finite.
    """
    optimizer = recipe.optimizer(groups or [dict(params=list(model.parameters()))])
    rates = [group["lr"] for group in optimizer.param_groups]
    losses = restore_training(folder, model, optimizer, None) if folder else []
    clock = _Clock(folder)
    model.train()
    bar = tqdm(range(len(losses), num_steps), desc=name, initial=len(losses), total=num_steps, unit="step",
               mininterval=2)
    for step in bar:
        if minutes and clock.seconds() > 60 * minutes:
            break
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * recipe.rate(step / of_steps)
        loss = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"{name}: the loss became {losses[-1]} at step {step}")
        if folder and clock.is_due():
            keep_training(folder, model, optimizer, None, losses)
            clock.keep()
    bar.close()
    if folder:
        keep_training(folder, model, optimizer, None, losses)
        clock.keep()
    model.eval().requires_grad_(False)
    return losses


class _Clock:
    """Seconds of training, those before an interruption included; also those of steps that a damaged state lost."""

    def __init__(self, folder: Path | None):
        self.file = folder / "seconds.json" if folder else None
        self.before = read_json(self.file) if self.file and self.file.exists() else 0.0
        self.started = self.kept = time.monotonic()

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    def is_due(self) -> bool:
        return time.monotonic() - self.kept > KEEP_EVERY

    def keep(self) -> None:
        write_whole(self.file, json.dumps(self.seconds()))
        self.kept = time.monotonic()
