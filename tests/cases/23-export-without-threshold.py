"""The exported networks can't give a score: threshold, ranges and training features are not in the export"""
import inspect

from _common import *

from d3ad.app import export

source = inspect.getsource(export.export)
print("export.export mentions:", {word: word in source for word in ("threshold", "calibration", "reference", "guarantee")})
verdict("threshold" in source and "calibration" in source, "threshold and calibration are exported; test_bridges.py runs them")
