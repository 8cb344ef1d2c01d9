"""`predict --preset faithful` on a model fitted as faithful gives another threshold than plain `predict`; no --threshold"""
from _common import *

folder, found = picture(TMP / "p/a.png").parent, {}
for name, more in {"plain": (), "preset": ("--preset", "faithful"), "own": ("--threshold", "0.5")}.items():
    code, out, err = run_cli("predict", "model", folder, "--out", TMP / name, *more)
    found[name] = (TMP / name / "scores.csv").read_text().splitlines()[1].split(",")[4] if code == 0 else err
print("thresholds:", found)
verdict(found == {"plain": "0.900000", "preset": "0.900000", "own": "0.500000"}, "the threshold stays with the preset that it was set under")
