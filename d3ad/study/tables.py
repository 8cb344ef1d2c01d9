"""Tables: what the paper reports beside what was measured, for a notebook, as CSV, Markdown and LaTeX."""
import pandas as pd

from d3ad.study import paper
from d3ad.study.provenance import write_product
from d3ad.study.workspace import Workspace


def html(frame: pd.DataFrame, decimals: int = 1, index: bool = False):
    """A table for a notebook: rounded, empty cells left empty, the same text each time."""
    from IPython.display import HTML
    return HTML(frame.to_html(index=index, float_format=lambda value: f"{value:.{decimals}f}", na_rep="", border=0))


def save_table(workspace: Workspace, frame: pd.DataFrame, name: str, fingerprint: str = "", decimals: int = 2) -> None:
    """Write results/<profile>/<name>.csv, rounded, with empty cells where nothing was measured, and note its source."""
    text = frame.assign(profile=workspace.name).to_csv(index=False, float_format=f"%.{decimals}f", lineterminator="\n")
    write_product(workspace, f"results/{workspace.name}/{name}.csv", text.encode(), fingerprint)


def beside_paper(table: int, measured: pd.DataFrame, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """The paper's rows with what was measured on the same dataset, category and method, then all other measured rows.

    A cell that was not measured, or that the paper doesn't give, is empty.  more: measured columns that the paper
    lacks.
    """
    known, measured = paper.reported(table), named_averages(measured)
    # the paper's own
    order = [f"measured_{column.removeprefix('reported_')}" for column in known if column.startswith("reported_")]
    measured = measured[paper.KEYS + [column for column in (*order, *more) if column in measured]]
    of_paper = pd.MultiIndex.from_frame(measured[paper.KEYS]).isin(pd.MultiIndex.from_frame(known[paper.KEYS]))
    return pd.concat([known.merge(measured, on=paper.KEYS, how="left"), measured[~of_paper]], ignore_index=True)


def named_averages(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with "Average" called "Average of 4" where only four of the paper's categories of a dataset are in it.

    An average over other categories is no measurement of the paper's, and gets a row of its own.
    """
    frame = frame.copy()
    for dataset, number in paper.num_categories().items():
        rows = frame["dataset"] == dataset
        measured = frame.loc[rows & ~frame["category"].str.startswith("Average"), "category"].nunique()
        if 0 < measured < number:
            frame.loc[rows & (frame["category"] == "Average"), "category"] = f"Average of {measured}"
    return frame


BOLD = {"html": "<b>{}</b>", "md": "**{}**", "tex": "\\textbf{{{}}}"}


def layout(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """A table of `beside_paper` laid out as the paper prints it, as text: a row per category, a column per method.

    A cell holds the metrics in their order, an em dash where one is missing; the best of a row and metric is bold,
    among what was reported and among what was measured.  Where a row has both, measured methods have a second column;
    where no row has, the dataset's name says which rows were measured.  kind: "html", "md" or "tex".
    """
    given = {prefix: frame.filter(regex=f"^{prefix}_").notna().any(axis=1) for prefix in ("reported", "measured")}
    side_by_side = bool((given["reported"] & given["measured"]).any())
    methods = frame["method"].unique()
    columns = ([(method, prefix) for method in methods for prefix in given
                if given[prefix][frame["method"] == method].any()] if side_by_side
               else [(method, None) for method in methods])
    rows = []
    for (dataset, category), group in frame.groupby(["dataset", "category"], sort=False):
        measured = given["measured"][group.index].any() and not side_by_side
        row = {"dataset": dataset + (", measured" if measured else ""), "category": category.replace("_", " ")}
        group = group.set_index("method")
        for method, prefix in columns:
            kind_of_value = prefix or ("measured" if measured else "reported")
            values = group.filter(regex=f"^{kind_of_value}_(i_auroc|p_auroc|pro|fps|seconds|megabytes)$")
            values = values.dropna(axis=1, how="all")
            text = " / ".join([] if method not in group.index
                              else [_cell(values[column], method, kind) for column in values])
            row[method + (", measured" if prefix == "measured" else "")] = text if text.strip("— /") else ""
        rows.append(row)
    return pd.DataFrame(rows)


def _cell(column: pd.Series, method: str, kind: str) -> str:
    """One number as text, bold where it is the best of its row; the lowest is the best where it is a time or memory."""
    value = column[method]
    if pd.isna(value):
        return "—"
    best = column.min() if column.name.endswith(("seconds", "megabytes")) else column.max()
    text = (f"{value:.2g}" if column.name.endswith("seconds")
            else f"{value:.0f}" if column.name.endswith("megabytes") else f"{value:.1f}")
    return BOLD[kind].format(text) if value == best and column.notna().sum() > 1 else text


def save_layouts(workspace: Workspace, frame: pd.DataFrame, name: str, caption: str, fingerprint: str = "",
                 decimals: int = 2) -> None:
    """Write results/<profile>/<name>.csv, and the same as the paper lays it out: .md (Markdown) and .tex (LaTeX,
    booktabs).
    """
    save_table(workspace, frame, name, fingerprint, decimals)
    markdown = layout(frame, "md")
    lines = ["| " + " | ".join(row) + " |" for row in [list(markdown.columns), ["---"] * markdown.shape[1],
                                                       *markdown.to_numpy().tolist()]]
    write_product(workspace, f"results/{workspace.name}/{name}.md", ("\n".join([caption, "", *lines]) + "\n").encode(),
                  fingerprint)
    tex = layout(frame, "tex").to_latex(index=False, escape=False, caption=caption.replace("%", "\\%"),
                                        label=f"tab:{name}")
    write_product(workspace, f"results/{workspace.name}/{name}.tex", tex.replace("—", "--").encode(), fingerprint)


def of_dataset(workspace: Workspace, frame: pd.DataFrame, name: str, *metrics: str,
               average_only: bool = False) -> pd.DataFrame:
    """The rows of one dataset under the profile's split, with the columns that a table of the paper has.

    frame: of `comparison.compared`, in percent.  name: "visa", "btad", "mvtec" or "mtd".  metrics: "i_auroc",
    "p_auroc", "pro".
    average_only: leave the single categories out.  Without a row where the profile holds nothing of that dataset.
    """
    rows = frame[(frame["dataset"] == workspace.title(name)) & (frame["split"] == workspace.study.split)]
    rows = named_averages(rows)
    if average_only:
        rows = rows[rows["category"].str.startswith("Average")]
    return rows[paper.KEYS + [f"measured_{metric}" for metric in metrics]]


def of_paper(workspace: Workspace, number: int, rows: pd.DataFrame, caption: str):
    """A table of the paper beside what was measured: written as CSV, Markdown and LaTeX; returned for a notebook.

    rows: of `of_dataset`; methods that the table lacks are left out.  The best number of a row is bold.
    Raises ValueError for a table that the paper doesn't have.
    """
    frame = beside_paper(number, rows[rows["method"].isin(paper.reported(number)["method"])])
    save_layouts(workspace, frame, f"table{number}", f"Table {number}: {caption}")
    return layout_html(frame)


def layout_html(frame: pd.DataFrame):
    """`layout` for a notebook."""
    from IPython.display import HTML
    return HTML(layout(frame, "html").to_html(index=False, escape=False, border=0))
