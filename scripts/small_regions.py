"""What keeping small regions of a mask changes in PRO, where the official code drops them when a mask is made smaller.

    python scripts/small_regions.py --profile mvtec-cpu --data-root DIR

Reads the maps that notebooks 02, 03 and 06 leave in the cache, or makes them, and writes
results/<profile>/small_regions.csv.
"""
import argparse

import pandas as pd

from d3ad import metrics
from d3ad.data import synthetic
from d3ad.study import tables
from d3ad.study.workspace import open_workspace


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="mvtec-cpu")
    parser.add_argument("--data-root", default="")
    options = parser.parse_args()
    workspace, rows = open_workspace(options.profile, options.data_root), []
    for run in workspace.runs():
        maps = run.detector.renormalised(run.outcome().prediction, run.config.normalisation).anomaly_map
        size = run.config.image_size
        row = dict(dataset=workspace.title(run.name), category=run.category, pixels=size)
        for name, keep in (("kept", True), ("dropped", False)):
            masks = run.dataset.masks("test", size, keep)
            row[f"regions_{name}"] = sum(synthetic.regions(mask.numpy())[1] for mask in masks)
            row[f"measured_pro_{name}"] = 100 * metrics.pro(maps, masks)
        rows.append(row)
    frame = pd.DataFrame(rows)
    tables.save_table(workspace, frame, "small_regions")
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
