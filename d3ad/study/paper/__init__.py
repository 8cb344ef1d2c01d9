"""The numbers of the paper's Tables 1 to 8, as data.

One CSV a table, one row a cell, in the order of print, copied from the text of "D3AD: Dynamic Denoising Diffusion
Probabilistic Model for Anomaly Detection"; a cell printed as "-" has no row.  Where the machine that read the PDF ran a
cell's numbers together, or a number needs a word beside it, `note` says so.
"""
from importlib.resources import files

import pandas as pd

TABLES = range(1, 9)
METRICS = ("i_auroc", "p_auroc", "pro", "fps", "seconds")
KEYS = ["dataset", "category", "method"]
ROUNDING = 0.05                                             # an average is printed with one decimal
# the whole method under the names that its ablations give it
OWN_RESULT = {(4, "DIC"): "D3AD", (5, "DS + DA"): "D3AD"}


def cells(table: int) -> pd.DataFrame:
    """Tables 1 to 8 of the paper, one row a cell: table, dataset, category, method, metric, unit, reported, note.

    metric: i_auroc, p_auroc, pro (%), fps (1/s) or seconds (s).  category: the dataset's folder name, or "Average".
    Raises ValueError for a table that the paper doesn't have.
    """
    if table not in TABLES:
        raise ValueError(f"the paper has Tables 1 to 8, not {table!r}")
    with files(__name__).joinpath(f"table{table}.csv").open(encoding="utf-8") as file:
        # "01" is a name, and an empty note is an empty text.
        return pd.read_csv(file, dtype={"category": str}, keep_default_na=False)


def reported(table: int) -> pd.DataFrame:
    """What the paper prints in Tables 1 to 8: columns dataset, category, method, reported_*, in the paper's units and
    order.

    A cell that the paper doesn't give is empty.  Raises ValueError for a table that the paper doesn't have.
    """
    frame = cells(table)
    order = pd.MultiIndex.from_frame(frame[KEYS].drop_duplicates())
    wide = frame.pivot(index=KEYS, columns="metric", values="reported")  # sorted by name, so put back in order
    wide = wide.reindex(index=order, columns=frame["metric"].unique()).add_prefix("reported_")
    return wide.rename_axis(columns=None).reset_index()


def contradictions(tolerance: float = 0.1) -> pd.DataFrame:
    """Where the paper's tables contradict themselves or each other: columns table, method, metric, printed, recomputed.

    Every printed Average of Tables 1, 3 and 6 beside the mean of its categories; then every average that a later table
    prints again, beside the first one printed (in `recomputed`).  Listed is what differs by more than the tolerance and
    the rounding of a printed average, 0.05.
    """
    rows, first = [], {}
    for table in TABLES:
        frame = cells(table)
        averages = frame[frame["category"] == "Average"]
        means = frame[frame["category"] != "Average"].groupby(["method", "metric"])["reported"].mean()
        for row in averages.itertuples():
            if (row.method, row.metric) in means.index:
                rows.append((table, row.method, row.metric, row.reported, means[row.method, row.metric]))
        for row in averages.itertuples():
            key = (row.dataset, OWN_RESULT.get((table, row.method), row.method), row.metric)
            if key in first:
                rows.append((table, row.method, row.metric, row.reported, first[key]))
            first.setdefault(key, row.reported)
    listed = pd.DataFrame(rows, columns=["table", "method", "metric", "printed", "recomputed"])
    # 1e-9: floats aren't decimals
    differs = (listed["printed"] - listed["recomputed"]).abs() > tolerance + ROUNDING + 1e-9
    return listed[differs].reset_index(drop=True)
