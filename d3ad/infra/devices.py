"""Which processor computes, what it is called, and the random numbers of networks that are built on the CPU."""
import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path

import torch


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto": cuda, then mps, then cpu.

    Raises ValueError for another name, or a device that this machine or PyTorch does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device in has if has[device]))
    if name not in has:
        raise ValueError(f"device must be auto, {', '.join(has)}; got {name!r}")
    if not has[name]:
        raise ValueError(f"device = {name}, but this PyTorch sees no {name.upper()} on this machine: set device to "
                         "auto or cpu")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What computes: the GPU's name, else the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()


def processor_name() -> str:
    """The processor's name where the system tells it, and the widest registers that PyTorch uses, "AMD EPYC, AVX2": two
    kinds round in different orders, and training enlarges the difference.
    """
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text(encoding="utf-8").splitlines()
             if line.startswith("model name")] if info.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of the CPU from this seed inside the block; behind it as if there had been none."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
