"""Several processes on one training or prediction: `accelerate launch --num_processes 8 -m d3ad fit ...`.

Each process computes its share of every batch, gradients are averaged, and all end with the same weights.  Random
numbers are drawn for the whole batch and then shared out, so the result is that of one process, up to rounding.

Not torch's DistributedDataParallel: it averages the gradients of one module's forward, and a step here may call
several.
"""
import os
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor


class Alone:
    """One process that works alone; `Launched` has the same methods, for several."""

    count, is_first = 1, True

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of rows (N, ...)."""
        return rows

    def gather(self, parts: list) -> list:
        """The lists of all processes, one after the other."""
        return parts

    def check_same(self, step: int, folder: Path | None) -> None:
        """Raise ValueError where processes would go on from different steps."""

    def weighted(self, loss: Tensor, of: int) -> Tensor:
        """The mean loss of this process's share of `of` images, scaled so that the processes average to its mean."""
        return loss

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Average the gradients over all processes, in place; returns the average loss."""
        return loss


ALONE = Alone()


class Launched:
    """The processes that accelerate launched together, seen from one of them; the interface of `Alone`.

    Making it also makes this process's own GPU the current one.  Raises ImportError where accelerate isn't installed.
    """

    def __init__(self):
        try:
            from accelerate import PartialState
        except ImportError:
            raise ImportError('several processes were launched, which takes accelerate: pip install '
                              '"d3ad[cluster]"') from None
        self.state = PartialState(cpu=not torch.cuda.is_available())

    @property
    def count(self) -> int:
        """How many processes work together."""
        return self.state.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.state.is_main_process

    def share(self, rows: Tensor) -> Tensor:
        """This process's part of rows (N, ...): N / count of them, a few get one more."""
        return rows.tensor_split(self.count)[self.state.process_index]

    def gather(self, parts: list) -> list:
        """The lists of all processes, one after the other, in each process."""
        from accelerate.utils import gather_object
        return gather_object(parts)

    def check_same(self, step: int, folder: Path | None) -> None:
        """Raise ValueError where the processes would go on from different steps: they don't see the same folder."""
        steps = set(self.gather([step]))
        if len(steps) > 1:
            raise ValueError(f"the processes found training states of different steps, {sorted(steps)}, in {folder}: "
                             "put it on a disk that all share")

    def weighted(self, loss: Tensor, of: int) -> Tensor:
        """The mean loss over this process's share of a batch of `of`, scaled so that the average over processes is the
        batch's mean.

        Raises ValueError for a batch with fewer rows than processes.
        """
        if of < self.count:
            raise ValueError(f"a batch of {of} can't be shared by {self.count} processes: launch fewer, or raise "
                             "batch_size")
        return loss * (len(self.share(torch.empty(of))) * self.count / of)

    def average(self, model: nn.Module, loss: Tensor) -> Tensor:
        """Average the gradients over all processes, in place; returns the average loss."""
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        # one message in place of hundreds
        flat = torch.cat([loss.detach().reshape(1), *(g.flatten() for g in gradients)])
        torch.distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(gradients, flat[1:].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return flat[0]


@lru_cache
def launched() -> Alone | Launched:
    """The processes that were launched together; `ALONE` where there is only this one, and then accelerate need not be
    installed.
    """
    return Launched() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ALONE
