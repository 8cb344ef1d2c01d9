"""A network with some layers exchanged for others that compute the same."""
import copy
from collections.abc import Callable

import torch.nn as nn

Exchange = Callable[[nn.Module], nn.Module | None]


def exchanged(network: nn.Module, other: Exchange) -> nn.Module:
    """The same network and parameters; each layer for which `other(layer)` gives one is replaced by it.

    What is replaced isn't looked into further.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return _exchanged(copy.deepcopy(network, shared), other)


def _exchanged(module: nn.Module, other: Exchange) -> nn.Module:
    if (found := other(module)) is not None:
        return found
    for name, child in module.named_children():
        setattr(module, name, _exchanged(child, other))
    return module
