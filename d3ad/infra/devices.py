"""Which processor computes."""
import torch


def pick_device(name: str) -> torch.device:
    """ "auto": cuda, then mps, then cpu.  Raises ValueError for a device that this machine or this PyTorch hasn't."""
    has = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(name, lambda: True)
    if not has():
        raise ValueError(f"device = {name}, but this PyTorch sees no {name.upper()} on this machine: device = auto or "
                         "cpu")
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
