"""scripts/two_processors.py: the table of differences, from two tables that are made up."""
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import two_processors


def frame(**i_auroc: float) -> pd.DataFrame:
    """One category and its average, the same PRO everywhere."""
    return pd.DataFrame([dict(dataset="VisA-like", category=category, split="random", seed=3, method=method,
                              measured_i_auroc=value, measured_p_auroc=90.0, measured_pro=80.0)
                         for method, value in i_auroc.items() for category in ("board", "Average")])


def test_differences_are_those_of_single_categories():
    found = two_processors.compared(frame(D3AD=95.0, PaDiM=90.0, SPADE=80.0), frame(PaDiM=87.5, D3AD=95.5))
    assert found[["category", "method", "largest_difference"]].to_numpy().tolist() == [
        ["board", "D3AD", 0.5], ["board", "PaDiM", 2.5]]
    assert "| PaDiM | 1 | 2.50 | 2.50 |" in two_processors.page(found, ("one", "another"), "demo")
