"""Seconds and memory of whatever computes: the one clock of this repository."""
import contextlib
import ctypes
import gc
import threading
import time
from collections.abc import Callable

import psutil
import torch
from torch import Tensor

ROUNDS = 3


def keep_freed_memory() -> None:
    """Have glibc keep what is freed, so that large layers don't wait for the system to hand out fresh pages.

    Measured: a tenth off the paper's autoencoder on a CPU.  For this process, until it ends; nothing happens on other
    systems.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)           # M_MMAP_MAX: no block gets pages of its own
        libc.mallopt(-1, 2 ** 31 - 1)  # M_TRIM_THRESHOLD: the heap doesn't shrink


def clock(work: Callable[[], object], rounds: int = 1, warm_up: int = 0) -> list[float]:
    """Seconds of each of some rounds of work(), after `warm_up` that aren't counted; a GPU is waited for.

    Not torch.utils.benchmark: its Timer warms up twice more and tells the mean only, and a round here may take ten
    seconds.
    """
    seconds = []
    for _ in range(warm_up + rounds):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return seconds[warm_up:]


def timed(build: Callable[[], Callable[[Tensor], object]], images: Tensor, device: torch.device, rounds: int = ROUNDS,
          first_images: int | None = None) -> dict:
    """What one method costs on one batch: `build()` makes it and returns its predict(images).

    seconds: per image, of each of some rounds after a first call that isn't counted, since it is slower.
    device: where it computes.
    megabytes: the most memory that method and batch hold together, above what the process held before: on a GPU
    torch's count of allocated memory, else the resident memory of the process, looked at every few milliseconds.
    first_images: how many images the first call gets, which is not counted; None: all.
    """
    on_gpu = device.type == "cuda"
    before = _held(on_gpu)
    predict = build()
    predict(images[:first_images])
    with memory_peak(on_gpu) as peak:
        seconds = [total / len(images) for total in clock(lambda: predict(images), rounds)]
    return dict(seconds=seconds, megabytes=max(peak[0] - before, 0) / 1e6)


def _held(on_gpu: bool) -> int:
    """Bytes in use, after everything that is no longer needed was given back."""
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated()
    # glibc keeps freed memory; other systems' libraries lack the call
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def memory_peak(on_gpu: bool):
    """A list of one number: the bytes held before the block, and, once it has ended, the most held inside it."""
    highest, done = [_held(on_gpu)], threading.Event()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        yield highest
        highest[0] = torch.cuda.max_memory_allocated()
        return

    def watch():
        process = psutil.Process()
        while not done.wait(0.004):
            highest[0] = max(highest[0], process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        done.set()
        thread.join()
