"""The exported networks can't give a score: threshold, ranges and training features are not in the export"""
from _common import *

import inspect
from d3ad import export
source = inspect.getsource(export.export)
print("export.export mentions:", {word: word in source for word in ("threshold", "calibration", "reference", "promise")})
verdict("threshold" in source and "calibration" in source, "threshold and calibration are exported; test_bridges.py runs them")
