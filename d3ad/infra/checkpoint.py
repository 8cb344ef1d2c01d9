"""Reading the folder of a saved detector, which may come from anyone.

Nothing in it is ever run: weights are safetensors, never pickles, settings are JSON, and nothing is fetched.  What doesn't fit
is refused in one line that names the file, before memory is taken for it.
"""
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from d3ad.infra.files import read_json

FORMAT = 1  # of the folder; raised when an older d3ad couldn't read it
WEIGHTS = "diffusion_pytorch_model.safetensors"  # diffusers' name
MOST = {"layers": 64, "depth": 64, "blocks": 64}  # of what makes a loop; any other number in a network's config: 16,384


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Have every ValueError of the block name `file`, where it names nothing in that folder already."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        if str(file.parent) in str(error):
            raise
        raise ValueError(f"{file}: {' '.join(str(error).split())}") from None


def read_settings(folder: Path) -> dict:
    """The config.json of a saved detector.

    Raises FileNotFoundError where there is none, ValueError where it is damaged, or of another program or version.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no saved detector: config.json is missing")
    settings = read_json(file)
    if not isinstance(settings, dict) or not {"format", "config", "autoencoder", "losses"} <= set(settings):
        raise ValueError(f"{file} is not of a saved detector")
    if settings["format"] != FORMAT:
        raise ValueError(f"{file} has format {settings['format']!r}, this version reads {FORMAT}: train the detector anew, or use "
                         "the version that saved it")
    losses = settings["losses"]
    if not isinstance(losses, dict) or not all(isinstance(part, list) and all(isinstance(x, (int, float)) for x in part)
                                               for part in losses.values()):
        raise ValueError(f"{file}: losses must be lists of numbers")
    return settings


def read_tensors(file: Path, *names: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises FileNotFoundError where it is missing, ValueError where it is something else, lacks one of `names`, or holds a
    value that isn't finite.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    try:
        tensors = load_file(file)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a safetensors file, or damaged ({error})") from None
    if missing := sorted(set(names) - set(tensors)):
        raise ValueError(f"{file}: no {', '.join(missing)} in it")
    if broken := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{file}: {broken[0]} holds values that are NaN or infinite")
    return tensors


def load_into(model: nn.Module, file: Path) -> nn.Module:
    """Give `model` the weights in a file; ValueError where they are not its own."""
    try:
        model.load_state_dict(read_tensors(file))
    except RuntimeError:
        raise ValueError(f"{file}: its tensors are not those of the network that config.json describes") from None
    return model


def check_size(file: Path, make: Callable[[], nn.Module]) -> None:
    """Raise ValueError where the network that make() builds has many more values than the file: before it takes memory."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    with torch.device("meta"):
        expected = sum(parameter.numel() for parameter in make().parameters())
    try:
        with safe_open(file, "pt") as stored:
            found = sum(torch.Size(stored.get_slice(key).get_shape()).numel() for key in stored.keys())
    except SafetensorError as error:
        raise ValueError(f"{file} is not a safetensors file, or damaged ({error})") from None
    if expected > 1.1 * found:
        raise ValueError(f"{file} holds {found:,} values, and config.json describes a network of {expected:,}")


def check_network(folder: Path, kind: type) -> None:
    """Raise where a folder in diffusers' convention holds another class than `kind`, or a network that its weights don't fill."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: the saved detector is incomplete")
    config = read_json(file)
    if not isinstance(config, dict) or config.get("_class_name") != kind.__name__:
        raise ValueError(f"{file} is not of a {kind.__name__}")
    if "quantization_config" in config or "auto_map" in config:
        raise ValueError(f"{file}: quantization_config and auto_map are not supported")
    for key, value in config.items():
        most = next((most for word, most in MOST.items() if word in key), 16_384)
        items = value if isinstance(value, list) else [value]
        if len(items) > 64 or any(isinstance(item, (int, float)) and not -1 <= item <= most for item in items):
            raise ValueError(f"{file}: {key} is out of range")
    scale = config.get("scaling_factor", 1)
    if not isinstance(scale, (int, float)) or scale <= 0:
        raise ValueError(f"{file}: scaling_factor must be above 0; got {scale!r}")
    try:
        check_size(folder / WEIGHTS, lambda: kind.from_config(config))
    except (TypeError, RuntimeError, AttributeError, ZeroDivisionError, NotImplementedError) as error:
        raise ValueError(f"{file} describes no {kind.__name__} ({type(error).__name__})") from None
