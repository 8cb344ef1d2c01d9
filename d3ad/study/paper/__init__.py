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


def pro_of_200(frame: pd.DataFrame) -> pd.Series:
    """Which rows of a table show the PRO of 200 thresholds (`measured_pro_200`), as the paper's is: a bool per row.

    Those of datasets with a reported PRO.  A category in which a method lacks that number shows the exact one of all,
    so that they can be compared.
    """
    if not {"reported_pro", "measured_pro", "measured_pro_200"} <= set(frame):
        return pd.Series(False, frame.index)
    measured = frame["measured_pro"].notna()
    lacking = (measured & frame["measured_pro_200"].isna()).groupby([frame["dataset"], frame["category"]])
    return measured & has_reported_pro(frame) & ~lacking.transform("any")


def has_reported_pro(frame: pd.DataFrame) -> pd.Series:
    """Which rows of a table are of a dataset with a reported PRO, a bool per row."""
    return frame["reported_pro"].notna().groupby(frame["dataset"]).transform("any")


def as_reported(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with the PRO of 200 thresholds as `measured_pro` in the rows of `pro_of_200`."""
    rows = pro_of_200(frame)
    return frame.assign(measured_pro=frame["measured_pro"].mask(rows, frame["measured_pro_200"])) if rows.any() \
        else frame


def num_categories() -> dict[str, int]:
    """How many categories the paper's averages are taken over, by dataset."""
    frames = [reported(table) for table in (1, 3, 6)]
    return {dataset: int((rows["category"].unique() != "Average").sum())
            for frame in frames for dataset, rows in frame.groupby("dataset")}


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


def text_against_tables() -> pd.DataFrame:
    """What the paper's text says and what its own tables give, where the two differ: columns `text` and `tables`.

    The right column is computed from the tables' averages.
    """
    averages = {table: reported(table).query("category == 'Average'").set_index("method") for table in (1, 2, 4, 8)}
    visa, diffusion, steps, times = averages.values()
    over = {number: frame["reported_pro"].drop("D3AD") for number, frame in ((1, visa), (2, diffusion))}
    leads = [f"{visa.loc['D3AD', 'reported_pro'] - values.max():.1f} points over {values.idxmax()} (Table {number})"
             for number, values in over.items()]
    detect = diffusion["reported_i_auroc"]
    better = detect[detect > detect["D3AD"]].sort_values(ascending=False)
    given = diffusion["reported_p_auroc"].drop("D3AD").dropna().index
    fixed = steps["reported_pro"].drop("DIC")
    best = fixed[fixed > steps.loc["DIC", "reported_pro"]]
    seconds = times["reported_seconds"].sort_values(ascending=False)
    rows = [
        ("PRO on VisA: 2.7 points ahead of the state of the art", ", ".join(leads)),
        ("I-AUROC on VisA is state of the art",
         f"Table 2: D3AD {detect['D3AD']:.1f}, " + ", ".join(f"{name} {value:.1f}" for name, value in better.items())),
        ("P-AUROC on VisA exceeds all previous diffusion models", f"Table 2 gives that of {', '.join(given)} only"),
        ("of the fixed steps, 20 have a better PRO than the dynamic one",
         f"Table 4: D3AD {steps.loc['DIC', 'reported_pro']:.1f}, "
         + ", ".join(f"{name} {value:.1f}" for name, value in best.items())),
        ("the inference time is competitive", f"Table 8: of {len(seconds)} methods, the slowest is {seconds.index[0]}"),
    ]
    return pd.DataFrame(rows, columns=["text", "tables"])
