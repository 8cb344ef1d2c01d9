"""`predict --preset faithful` on a model fitted as faithful gives another threshold than plain `predict`; no --threshold"""
from _common import *

code, out, err = run_cli("predict", "model", picture(TMP / "p/a.png").parent, "--out", TMP / "o", "--threshold", "0.5")
print("--threshold:", code, err.strip())
# without training: only the bookkeeping of with_preset, networks and calibration replaced by nothing
from types import SimpleNamespace
import torch
from d3ad import D3AD, Config
fitted = D3AD(Config.profile("smoke", device="cpu"))
fitted.codec, fitted.calibration_images, fitted.promise = SimpleNamespace(kind="small"), torch.zeros(2, 3, 64, 64), "set on held-out good images"
fitted.conditioning = SimpleNamespace(settings=dict)
kept = {name: D3AD.__dict__[name] for name in ("_set_networks", "_conditioning", "_calibrate")}
D3AD._set_networks, D3AD._conditioning = (lambda self, compiled=False: None), (lambda self: SimpleNamespace(settings=dict))
D3AD._calibrate = lambda self, images: "calibrated anew: quantile of training images"
other = fitted.with_preset("faithful")
for name, function in kept.items(): setattr(D3AD, name, function)
print("with_preset('faithful') of a faithful detector: promise", repr(other.promise), "; calibration", repr(getattr(other, "calibration", None)))
verdict(other.promise == fitted.promise and code == 0, "the threshold stays with the preset that it was set under")
