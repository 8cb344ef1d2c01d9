"""Make torchvision importable beside a CPU-only torch.

torchvision's wheel on PyPI is built for CUDA.  Beside a CPU build of torch its compiled library does not load, and
`import torchvision` then fails with "operator torchvision::nms does not exist", which takes timm and diffusers down
with it.  Nothing here calls these operators, so declaring their schemas is enough.
"""
import importlib.util
import sys
from pathlib import Path

import torch

_library = None  # a torch Library lives only as long as something refers to it


def make_torchvision_importable() -> bool:
    """Declare torchvision's two missing operators where its compiled library can't load; True where that was needed."""
    global _library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or "torchvision" in sys.modules or _library is not None:
        return False
    try:
        for compiled in Path(spec.origin).parent.glob("_C.*"):
            torch.ops.load_library(str(compiled))
        torch.ops.torchvision.nms  # noqa: B018  raises where absent; present: the wheel fits this torch
        return False
    except (OSError, RuntimeError, AttributeError):
        _library = torch.library.Library("torchvision", "DEF")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return True
