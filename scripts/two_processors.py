"""How far the numbers of one run on two kinds of processor lie apart, tried on one machine.

    python scripts/two_processors.py --work DIR [--profile demo] [--data-root DIR] [--categories board,washer]

D3AD and the profile's baselines are trained and measured twice: once as this processor can, once with PyTorch and
oneDNN kept from its wider registers (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`), which round in another order, as
another processor does.  Writes docs/processors.csv, a row for each method and category, and docs/processors.md.  Both
runs keep what they have done in `--work`, and go on from there.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from d3ad.infra.files import ROOT
from d3ad.speed.benchmark.machine import describe
from d3ad.study.ablations import METRICS
from d3ad.study.readme.cells import markdown_table

KINDS = {"as it is": {}, "narrow": dict(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41")}
MEASURE = """
import sys
from d3ad.study import ablations, comparison
from d3ad.study.workspace import open_workspace
profile, data_root, out, categories, file = sys.argv[1:]
workspace = open_workspace(profile, data_root, out, **({"categories": categories.split(",")} if categories else {}))
names = comparison.available(workspace)
comparison.compared(workspace, ablations.benchmark_runs(workspace), names).to_csv(file, index=False)
"""
KEYS = ["dataset", "category", "split", "seed", "method"]


def compared(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row for each method and category: the metrics under each of KINDS, in percent, and the largest difference."""
    first, second = (frame[frame["category"] != "Average"].set_index(KEYS)[[f"measured_{metric}" for metric in METRICS]]
                     for frame in frames.values())
    difference = (second - first).abs().max(axis=1).rename("largest_difference")
    return first.join(second, rsuffix="_narrow").join(difference).round(2).reset_index()


def page(frame: pd.DataFrame, processor: str) -> str:
    """docs/processors.md."""
    largest = frame.groupby("method", sort=False)["largest_difference"].agg(["max", "mean", "size"])
    rows = [[method, int(row["size"]), f"{row['mean']:.2f}", f"{row['max']:.2f}"] for method, row in largest.iterrows()]
    table = markdown_table(["method", "categories", "mean", "largest"], rows)
    return f"""# Two kinds of processor

[Back to the README](../README.md)

Processors round in different orders, and training enlarges the difference. `scripts/two_processors.py` trains and
measures the `demo` profile twice on one machine ({processor}): as it is, and with PyTorch and oneDNN kept from wide
registers. The largest of the differences in I-AUROC, P-AUROC and PRO, in points, over the categories of
[processors.csv](processors.csv):

{table}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--categories", default="", help="names with commas between; by default all")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    frames = {}
    for kind, settings in KINDS.items():
        file = options.work / f"{kind.replace(' ', '-')}.csv"
        subprocess.run([sys.executable, "-c", MEASURE, options.profile, options.data_root, str(file.with_suffix("")),
                        options.categories, str(file)], env=os.environ | settings, cwd=ROOT, check=True)
        frames[kind] = pd.read_csv(file)
    frame = compared(frames)
    frame.to_csv(ROOT / "docs" / "processors.csv", index=False, lineterminator="\n")
    (ROOT / "docs" / "processors.md").write_text(page(frame, describe(torch.device("cpu"))["device"]), encoding="utf-8")
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
