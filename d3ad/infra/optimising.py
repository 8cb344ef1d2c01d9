"""The loop of every training: AdamW on a loss per step, which can be stopped, resumed and shared by processes."""
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from d3ad.infra.checkpoint import keep_training, restore_training
from d3ad.infra.files import save_tensors
from d3ad.infra.processes import ALONE, Alone

CHECKPOINT = "checkpoint"  # weights on the way of a training, by their step
SAVED_EVERY = 300  # seconds


def optimise(name: str, model: nn.Module, loss_of_step: Callable[[int], Tensor | Iterable[Tensor]], num_steps: int, *,
             learning_rate: float,
             weight_decay: float = 0.0, ema_decay: float = 0.0, schedule: str = "constant", folder: Path | None = None,
             save_every: float = SAVED_EVERY, checkpoints: int = 0, team: Alone = ALONE) -> list[float]:
    """AdamW on `loss_of_step(step)` for `num_steps` steps; trains `model` in place and returns the losses.

    loss_of_step: a scalar, or scalars one after the other that add up to it; the graph of each is gone before the next.
    name: shown beside the progress bar.  schedule: "constant" (the paper's) or "cosine", a short warm-up, then down to
    zero.  ema_decay: above 0, the weights left in `model` are their moving average.
    folder: weights, optimizer and step are kept there, with the state before, and a run that finds them goes on from
    them.
    save_every: seconds after which they are kept again; at the end they are in any case.  What is trained doesn't
    depend on it.
    checkpoints: so many times, after equal parts of the training, the weights (their average, where one is taken) stay
    in the folder as checkpoint-<steps>.safetensors.
    team: the processes that share the training; `loss_of_step` shares its batch out itself.
    Raises FloatingPointError when the loss is no longer finite, ValueError where the processes find different states in
    the folder or no state there is whole, RuntimeError where it is of another network.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()} if ema_decay else None
    losses = restore_training(folder, model, optimizer, average) if folder else []
    team.check_same(len(losses), folder)
    model.train()
    kept = time.monotonic()
    marks = {round(num_steps * (i + 1) / checkpoints) for i in range(checkpoints)}
    bar = tqdm(range(len(losses), num_steps), desc=name, initial=len(losses), total=num_steps, unit="step",
               mininterval=2)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _rate(step, num_steps, schedule)
        optimizer.zero_grad(set_to_none=True)
        loss = team.average(model, _backward(loss_of_step(step)))
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"{name}: the loss became {losses[-1]} at step {step}; lower the learning rate")
        if average is not None:
            decay = min(ema_decay, (step + 1) / (step + 10))  # early weights are forgotten fast
            _average(average, model.state_dict(), decay)
        bar.set_postfix(loss=f"{sum(losses[-50:]) / len(losses[-50:]):.4f}", refresh=False)
        if folder and team.is_first and step + 1 in marks:  # before the state: a resumed run has it or makes it
            weights = average if average is not None else model.state_dict()
            save_tensors(folder / f"{CHECKPOINT}-{step + 1:07}.safetensors", weights, {})
        if folder and team.is_first and (time.monotonic() - kept >= save_every or step + 1 == num_steps):
            keep_training(folder, model, optimizer, average, losses)
            kept = time.monotonic()
    if average is not None:
        model.load_state_dict(average)
    model.eval().requires_grad_(False)
    return losses


def _backward(losses: Tensor | Iterable[Tensor]) -> Tensor:
    """Add up the gradients of one loss, or of several one after the other; returns the loss, without a graph."""
    total: Tensor | float = 0.0
    for loss in ([losses] if isinstance(losses, Tensor) else losses):
        loss.backward()
        total = total + loss.detach()
    return total


@torch.no_grad()
def _average(average: dict[str, Tensor], new: dict[str, Tensor], decay: float) -> None:
    """Move each entry a little towards the new one, all in one call; counters are copied."""
    moving = [key for key, value in new.items() if value.is_floating_point()]
    get_ema_multi_avg_fn(decay)([average[key] for key in moving], [new[key] for key in moving], None)
    for key in set(new) - set(moving):
        average[key].copy_(new[key])


def _rate(step: int, num_steps: int, schedule: str) -> float:
    if schedule == "constant":
        return 1.0
    warm_up = max(num_steps // 20, 1)
    return min((step + 1) / warm_up, 0.5 * float(1 + torch.cos(torch.tensor(torch.pi * step / num_steps))))
