"""Several processes on one training or prediction: `accelerate launch --num_processes 8 -m d3ad fit ...`.

Each process ("rank") computes its share of every batch, gradients are averaged, and all end with the same weights.  Random
numbers are drawn for the whole batch and then shared out, so the result is that of one process, up to rounding.
With one process nothing here does anything, and accelerate need not be installed.
"""
import os
from functools import lru_cache

import torch
import torch.nn as nn
from torch import Tensor


@lru_cache
def _state():
    """accelerate's view of the processes that were launched together; None where there is only this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        from accelerate import PartialState
    except ImportError:
        raise ImportError('several processes were launched, which takes accelerate: pip install "d3ad[cluster]"') from None
    return PartialState(cpu=not torch.cuda.is_available())  # also makes each rank's own GPU the current one


def count() -> int:
    """How many processes work together."""
    return _state().num_processes if _state() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks; true where it is alone."""
    return _state() is None or _state().is_main_process


def wait() -> None:
    """Go on once all processes have come here."""
    if _state():
        _state().wait_for_everyone()


def share(rows: Tensor) -> Tensor:
    """This process's part of rows (N, ...): N / count of them, a few get one more."""
    return rows.tensor_split(count())[_state().process_index] if _state() else rows


def gather(parts: list) -> list:
    """The lists of all processes, one after the other, in each process."""
    if _state() is None:
        return parts
    from accelerate.utils import gather_object
    return gather_object(parts)


def check_same(step: int, folder) -> None:
    """Raise ValueError where the processes would go on from different steps: they don't see the same folder."""
    steps = set(gather([step]))
    if len(steps) > 1:
        raise ValueError(f"the processes found training states of different steps, {sorted(steps)}, in {folder}: "
                         "put it on a disk that all share")


def weighted(loss: Tensor, of: int) -> Tensor:
    """The mean loss over this process's share of a batch of `of`, scaled so that the average over processes is the batch's mean.

    Raises ValueError for a batch with fewer rows than processes.
    """
    if _state() is None:
        return loss
    if of < count():
        raise ValueError(f"a batch of {of} can't be shared by {count()} processes: launch fewer, or raise batch_size")
    return loss * (len(share(torch.empty(of))) * count() / of)


def average(model: nn.Module, loss: Tensor) -> Tensor:
    """Average the gradients over all processes, in place; returns the average loss."""
    if _state() is None:
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)])  # one message in place of hundreds
    torch.distributed.all_reduce(flat)
    flat /= count()
    for gradient, mean in zip(gradients, flat[1:].split([g.numel() for g in gradients])):
        gradient.copy_(mean.view_as(gradient))
    return flat[0]
