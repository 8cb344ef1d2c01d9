"""`predict --preset faithful` on a model fitted as faithful gives another threshold than plain `predict`; no --threshold"""
from _common import *

code, out, err = run_cli("predict", "model", picture(TMP / "p/a.png").parent, "--out", TMP / "o", "--threshold", "0.5")
print("--threshold:", code, err.strip())
# without training: only the bookkeeping of presets.apply, networks replaced by nothing
from types import SimpleNamespace

import torch

from d3ad import D3AD, Config

fitted = D3AD(Config.profile("smoke", device="cpu"))
fitted.codec, fitted.calibration_images, fitted.guarantee = SimpleNamespace(kind="small"), torch.zeros(2, 3, 64, 64), "set on held-out good images"
fitted.conditioning = SimpleNamespace(settings=dict)
from d3ad.speed import presets

kept, presets.FastNetworks = presets.FastNetworks, lambda *parts: None
other = presets.apply(fitted, "faithful")
presets.FastNetworks = kept
print("presets.apply of a faithful detector: guarantee", repr(other.guarantee), "; calibration", repr(getattr(other, "calibration", None)))
verdict(other.guarantee == fitted.guarantee and code == 0, "the threshold stays with the preset that it was set under")
