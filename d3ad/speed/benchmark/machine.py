"""What this machine can do at most: the rate of its matrix multiplications and of its memory."""
from collections.abc import Callable

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from d3ad.infra.devices import device_name
from d3ad.infra.versions import commit, version
from d3ad.speed.nnpack import multiplied
from d3ad.speed.presets import low_precision_pays
from d3ad.speed.timing import clock

PATIENCE = 3.0  # seconds of one product, at most
SIZES = (256, 1024, 2048, 4096)  # of the matrices
LARGEST = {"paper": 4096, "demo": 4096, "tiny": 256}  # of them, by the benchmark's size; "tiny" is for tests


def describe(device: torch.device) -> dict:
    """The machine in words and numbers, without its name."""
    name = device_name(device)
    if device.type == "cpu" and low_precision_pays(device):
        name += " with AMX"
    return dict(device=name, threads=torch.get_num_threads(), memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
                torch=version("torch"), commit=commit())


def best_seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """The shortest of some rounds after one that isn't counted: what the machine can do when nothing disturbs it."""
    return min(clock(work, rounds, warm_up=1))


def matmul_rate(device: torch.device, dtype: torch.dtype, largest: int) -> float:
    """The best rate of square matrix multiplications up to a size, in GFLOP/s: the limit of every network here.

    It stops before a size of which one product would take more than some seconds: a processor without units for a type
    takes minutes for the largest, and is no faster there.
    """
    best = 0.0
    for size in SIZES:
        if size > largest or (best and 2 * size ** 3 / best / 1e9 > PATIENCE):
            break
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        best = max(best, 2 * size ** 3 / best_seconds(lambda: a @ b) / 1e9)
    return best


def bandwidth(device: torch.device) -> float:
    """The rate at which memory is read and written by a copy, in GB/s."""
    source = torch.zeros(128_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best_seconds(lambda: target.copy_(source)) / 1e9


def flop_counter() -> FlopCounterMode:
    """Counts the floating point operations inside the block, with those that torch's own counter leaves out: attention
    on a CPU, NNPACK's multiplications.
    """
    aten = torch.ops.aten
    return FlopCounterMode(display=False, custom_mapping={
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
        aten._nnpack_spatial_convolution: multiplied})
