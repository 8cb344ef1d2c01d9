"""How far the numbers of one run on two kinds of processor lie apart.

    python scripts/two_processors.py --tables FIRST.csv SECOND.csv --names "AMD EPYC, AVX2" "AMD EPYC, AVX512"
    python scripts/two_processors.py --work DIR [--profile demo] [--data-root DIR] [--categories board,washer]

The first compares two results/<profile>/benchmark.csv of the same settings, from two machines.  The second tries it on
one: D3AD and the profile's baselines are trained and measured twice, once as this processor can, once with PyTorch and
oneDNN kept from its widest registers (`ATEN_CPU_CAPABILITY`, `ONEDNN_MAX_CPU_ISA`), which round in another order, as
another processor does.  Both runs keep what they have done in `--work`, and go on from there.
Writes docs/processors.csv, a row for each method and category, and docs/processors.md.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from d3ad.infra.devices import processor_name
from d3ad.infra.files import ROOT, write_whole
from d3ad.study.ablations import METRICS
from d3ad.study.readme.cells import markdown_table

NARROWER = {"AVX512": dict(ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2")}  # of other processors: NARROWEST
NARROWEST = dict(ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41")
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


def compared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and category that both tables have: the metrics of both, in percent, and the largest
    difference.
    """
    first, second = (frame[frame["category"] != "Average"].set_index(KEYS)[[f"measured_{metric}" for metric in METRICS]]
                     for frame in (first, second))
    difference = (second - first).abs().max(axis=1).rename("largest_difference")
    found = first.join(second.add_suffix("_second"), how="inner").join(difference)
    return found.round(2).reset_index()


def page(frame: pd.DataFrame, names: tuple[str, str], profile: str) -> str:
    """docs/processors.md.  names: of the two processors."""
    largest = frame.groupby("method", sort=False)["largest_difference"].agg(["max", "mean", "size"])
    rows = [[method, int(row["size"]), f"{row['mean']:.2f}", f"{row['max']:.2f}"] for method, row in largest.iterrows()]
    table = markdown_table(["method", "categories", "mean", "largest"], rows)
    return f"""# Two kinds of processor

[Back to the README](../README.md)

Processors add up in different orders, so they round differently, and training enlarges the difference. Here is
`{profile}` on two of them,
under the same settings: {names[0]},
and {names[1]}.
For each method and category the largest of the differences in I-AUROC, P-AUROC and PRO is taken, in points; the table
has the mean and the maximum over categories. [Each difference](processors.csv), from `scripts/two_processors.py`.

{table}
"""


def tried_here(options: argparse.Namespace) -> tuple[list[pd.DataFrame], tuple[str, str]]:
    """The tables of two runs on this machine, and what the two processors are called."""
    options.work.mkdir(parents=True, exist_ok=True)
    name = processor_name()
    narrow = NARROWER.get(name.rsplit(", ", 1)[1], NARROWEST)
    frames = []
    for kind, settings in (("as-it-is", {}), ("narrow", narrow)):
        file = options.work / f"{kind}.csv"
        subprocess.run([sys.executable, "-c", MEASURE, options.profile, options.data_root, str(file.with_suffix("")),
                        options.categories, str(file)], env=os.environ | settings, cwd=ROOT, check=True)
        frames.append(pd.read_csv(file))
    return frames, (name, f"the same one kept to {narrow['ONEDNN_MAX_CPU_ISA']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--tables", type=Path, nargs=2, help="two results/<profile>/benchmark.csv")
    way.add_argument("--work", type=Path, help="where the two runs on this machine keep what they have done")
    parser.add_argument("--names", nargs=2, default=("the first", "the second"), help="the processors of --tables")
    parser.add_argument("--profile", default="demo", help="which to measure, or that of --tables")
    parser.add_argument("--data-root", default="")
    parser.add_argument("--categories", default="", help="names with commas between; by default all")
    options = parser.parse_args()
    frames, names = (map(pd.read_csv, options.tables), options.names) if options.tables else tried_here(options)
    frame = compared(*frames)
    write_whole(ROOT / "docs" / "processors.csv", frame.to_csv(index=False, lineterminator="\n"))
    write_whole(ROOT / "docs" / "processors.md", page(frame, names, options.profile))
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
