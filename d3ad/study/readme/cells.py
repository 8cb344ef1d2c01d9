"""Numbers and tables as Markdown has them."""
from collections.abc import Iterable

import pandas as pd

from d3ad.study.ablations import TITLES


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown: a | inside a cell is escaped, and no line breaks beside a ±."""
    def text(cell) -> str:
        return str(cell).replace("|", "\\|").replace(" ± ", "\u00a0±\u00a0")

    header = list(header)
    return "\n".join(f"| {' | '.join(map(text, line))} |" for line in [header, ["---"] * len(header), *rows])


def mean_and_spread(mean: float | None, spread: float | None = None, decimals: int = 1, sign: str = "") -> str:
    """A mean over seeds with its standard deviation, "93.4 ± 0.9"; the mean alone for one seed; "—" for nothing."""
    if mean is None or pd.isna(mean):
        return "—"
    text = f"{mean:{sign}.{decimals}f}"
    text = text.lstrip("+-") if not text.strip("+-0.") else text  # no "-0.0"
    return text if spread is None or pd.isna(spread) else f"{text} ± {spread:.{decimals}f}"


def in_one_cell(numbers: Iterable[float]) -> str:
    """Numbers in one cell, a decimal each: "100.0 / 98.6 / 96.0"."""
    return " / ".join(map(mean_and_spread, numbers))


def metrics_text(row: pd.Series, prefix: str = "measured") -> str:
    """The three metrics of a row in one cell: "100.0 / 98.6 / 96.0"."""
    return " / ".join(mean_and_spread(row.get(f"{prefix}_{metric}"), row.get(f"spread_{metric}")) for metric in TITLES)


def seeds_text(frame: pd.DataFrame) -> str:
    """How many seeds the rows have: "1 seed", "3 seeds"."""
    count = frame["seed"].nunique()
    return f"{count} seed" + "s" * (count != 1)
