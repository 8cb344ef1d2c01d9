"""Tables: what the paper reports beside what was measured, for a notebook, as CSV, Markdown and LaTeX."""
import html as escaping

import pandas as pd

from d3ad.baselines import BASELINES, title_of
from d3ad.study import paper
from d3ad.study.comparison import MINUTES, to_be_trained
from d3ad.study.provenance import write_product
from d3ad.study.settings import features_in_words
from d3ad.study.workspace import Workspace

NOTHING_MEASURED = "Nothing of it was measured"


def html(frame: pd.DataFrame, decimals: int = 1, index: bool = False):
    """A table for a notebook: rounded, empty cells left empty, the same text each time."""
    from IPython.display import HTML
    return HTML(frame.to_html(index=index, float_format=lambda value: f"{value:.{decimals}f}", na_rep="", border=0))


def save_table(workspace: Workspace, frame: pd.DataFrame, name: str, fingerprint: str = "", decimals: int = 2) -> None:
    """Write results/<profile>/<name>.csv, rounded, with empty cells where nothing was measured, and note its source.

    Its last columns are the profile and the backbone (timm's name) that what was measured rests on.
    """
    frame = frame.assign(profile=workspace.name, backbone=workspace.config.backbone)
    text = frame.to_csv(index=False, float_format=f"%.{decimals}f", lineterminator="\n")
    write_product(workspace, f"results/{workspace.name}/{name}.csv", text.encode(), fingerprint)


def beside_paper(table: int, measured: pd.DataFrame, more: tuple[str, ...] = ()) -> pd.DataFrame:
    """The paper's rows with what was measured on the same dataset, category and method, then all other measured rows.

    A cell that was not measured, or that the paper doesn't give, is empty.  more: measured columns that the paper
    lacks.  PRO of 200 thresholds comes last, where there is one and the paper gives a PRO.
    """
    known, measured = paper.reported(table), named_averages(measured)
    # the paper's own
    order = [f"measured_{column.removeprefix('reported_')}" for column in known if column.startswith("reported_")]
    more = (*more, *(["measured_pro_200"] if "reported_pro" in known else []))
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
    where no row has, the dataset's name says which rows were measured.  PRO beside a reported one is that of 200
    thresholds, where it is known (`paper.as_reported`).  kind: "html", "md" or "tex".
    """
    frame = paper.as_reported(frame)
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
    booktabs), with a line on what was measured, and in Markdown one on baselines that were not.
    """
    save_table(workspace, frame, name, fingerprint, decimals)
    markdown, about, empty = layout(frame, "md"), what_was_measured(workspace, frame), empty_cells(workspace, frame)
    lines = ["| " + " | ".join(row) + " |" for row in [list(markdown.columns), ["---"] * markdown.shape[1],
                                                       *markdown.to_numpy().tolist()]]
    text = "\n".join([caption, "", about, "", *lines, *(["", empty] if empty else [])])
    write_product(workspace, f"results/{workspace.name}/{name}.md", (text + "\n").encode(), fingerprint)
    titled = layout(frame, "tex").rename(columns=lambda title: title.replace("%", "\\%"))
    tex = titled.to_latex(index=False, escape=False, label=f"tab:{name}",
                                        caption=f"{caption}. {about}".replace("%", "\\%").replace("_", "\\_"))
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
    columns = [f"measured_{metric}" for metric in metrics]
    if "pro" in metrics and "measured_pro_200" in rows:
        columns.append("measured_pro_200")
    return rows[paper.KEYS + columns]


def of_paper(workspace: Workspace, number: int, rows: pd.DataFrame, caption: str):
    """A table of the paper beside what was measured: written as CSV, Markdown and LaTeX; returned for a notebook.

    rows: of `of_dataset`; methods that the table lacks are left out, but for those that are like one of its own.  The
    best number of a row is bold.  Raises ValueError for a table that the paper doesn't have.
    """
    known = rows["method"].str.removesuffix("-like").isin(paper.reported(number)["method"])
    frame = beside_paper(number, rows[known])
    save_layouts(workspace, frame, f"table{number}", f"Table {number}: {caption}")
    return layout_html(workspace, frame)


def layout_html(workspace: Workspace, frame: pd.DataFrame):
    """`layout` for a notebook, with the lines of `save_layouts` below."""
    from IPython.display import HTML
    lines = [what_was_measured(workspace, frame), empty_cells(workspace, frame)]
    below = "".join(f"\n<p>{escaping.escape(line)}</p>" for line in lines if line)
    return HTML(layout(frame, "html").to_html(index=False, escape=False, border=0) + below)


def what_was_measured(workspace: Workspace, frame: pd.DataFrame) -> str:
    """What the measured cells of a table rest on, in a line: profile, features, image size, seed, and which PRO."""
    if not is_measured(frame).any():
        return f"{NOTHING_MEASURED} in the profile {workspace.name}."
    config, label = workspace.config, workspace.study.label and f"; {workspace.study.label}"
    return (f"Measured in the profile {workspace.name}: features of {features_in_words(config)}; {config.image_size} x "
            f"{config.image_size} pixels; seed {config.seed}{label}.{_which_pro(frame)}")


def is_measured(frame: pd.DataFrame) -> pd.Series:
    """Which rows of a table have a measured number, a bool per row."""
    return frame.filter(regex="^measured_").notna().any(axis=1)


def _which_pro(frame: pd.DataFrame) -> str:
    """Whether a table's measured PRO is exact; nothing where it has none."""
    if "measured_pro" not in frame or frame["measured_pro"].isna().all():
        return ""
    of_200 = paper.pro_of_200(frame)
    if not of_200.any():
        return " PRO is exact."
    rest = frame.loc[frame["measured_pro"].notna() & paper.has_reported_pro(frame) & ~of_200, "category"].unique()
    and_in = f", and in {', '.join(rest)}," if len(rest) else ""
    return (" PRO has 200 thresholds, as in the authors' code, on datasets with a reported one; "
            f"elsewhere{and_in} it is exact.")


def empty_cells(workspace: Workspace, frame: pd.DataFrame) -> str:
    """Why baselines lack measured cells of a table, in a line; empty where none does, or where nothing was measured."""
    rows = frame[is_measured(frame)]
    if rows.empty:
        return ""
    missing = [name for name in frame["method"].unique() if name in BASELINES and name not in set(rows["method"])]
    parts = to_be_trained(workspace, [name for name in missing if name in MINUTES])
    untrained = [name for name in missing if name not in MINUTES]
    other = {name: title_of(name) for name in untrained if title_of(name) != name}
    parts += [f"there is no {name} here, only {title} (docs/baselines.md)" for name, title in other.items()]
    if unlisted := [name for name in untrained if name not in other]:
        parts.append(f"not in this profile's list: {', '.join(unlisted)}")
    single = rows[~rows["category"].str.startswith("Average")]
    on = single.groupby("method", sort=False)["category"].agg(list)
    parts += [f"{name} was measured on {', '.join(categories)} only" for name, categories in on.items()
              if set(categories) < set(single["category"])]
    return f"Empty cells: {'; '.join(parts)}." if parts else ""
