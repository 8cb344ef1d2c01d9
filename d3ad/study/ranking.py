"""What a comparison of methods says: who can be ranked, their means and spreads, their ranks.

A frame is one of `comparison.compared`, unless a docstring says otherwise.
"""
from functools import lru_cache

import pandas as pd
from scipy.stats import studentized_range

from d3ad.study import ablations

TRAINING = FULL, SHORT, NONE_NEEDED = "full", "short", "none needed"  # how far a method was trained


def training_word(done: int, asked: int) -> str:
    """How far a method was trained: "full", "short", or "none needed" where its paper asks for no images."""
    return NONE_NEEDED if not asked else FULL if done >= asked else SHORT


def words(frame: pd.DataFrame) -> pd.Series:
    """The word of TRAINING for each method; none for D3AD."""
    single = frame[frame["category"] != "Average"].groupby("method", sort=False)["training"]
    return single.agg(lambda column: SHORT if SHORT in set(column) else column.iloc[0])


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy of the frame with the word of TRAINING in the averages, too: "short" where any of a method's rows is.

    A method that lacks a category which others have gets no average: it would be of other images.
    """
    frame, average = frame.copy(), frame["category"] == "Average"
    frame.loc[average, "training"] = frame.loc[average, "method"].map(words(frame))
    return frame[~(average & frame["method"].isin(partly(frame)))].reset_index(drop=True)


def rankable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the methods that can be ranked: measured on every category that others have, and trained on as many
    images as their papers ask for.
    """
    return frame[~frame["method"].isin([*frame.loc[frame["training"] == SHORT, "method"], *partly(frame)])]


def partly(frame: pd.DataFrame) -> list[str]:
    """The methods that lack a category which others have."""
    single = frame[frame["category"] != "Average"]
    counts = single.groupby("method", sort=False)[["dataset", "category"]].apply(
        lambda rows: len(rows.drop_duplicates()))
    return counts.index[counts < counts.max()].tolist()


def overall(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """One row per method: the mean of each metric over all categories and seeds under one split; of methods that were
    measured on all of them.
    """
    frame = frame[(frame["split"] == split) & (frame["category"] != "Average")]
    counts = frame.groupby("method").size()
    return ablations.method_means(frame[frame["method"].map(counts) == counts.max()]).reset_index()


def over_seeds(seeds: pd.DataFrame) -> pd.DataFrame:
    """One row per method: mean (`measured_*`) and standard deviation (`spread_*`) over seeds, of the same runs; of
    `pro_200` too, where the rows have it.

    Averages among the rows are taken as they are, so that a number read back from a rounded CSV file isn't rounded a
    second time; without any, they are computed from the single rows.
    """
    single, averages = seeds[seeds["category"] != "Average"], seeds[seeds["category"] == "Average"]
    columns = [f"measured_{metric}" for metric in ablations.AS_REPORTED if f"measured_{metric}" in seeds]
    if len(averages):
        whole = averages[averages["dataset"].str.startswith("all ")] if averages["dataset"].nunique() > 1 else averages
        return whole[["method", *columns, *(c.replace("measured_", "spread_") for c in columns)]].reset_index(drop=True)
    per_seed = single.groupby(["method", "seed"], sort=False)[columns].mean().groupby("method", sort=False)
    spread = per_seed.std().rename(columns=lambda name: name.replace("measured_", "spread_"))
    return per_seed.mean().join(spread).reset_index()


def as_text(frame: pd.DataFrame, metrics: dict[str, str]) -> pd.DataFrame:
    """Rows of `overall` or `over_seeds` as text, "93.1" or "93.1 ± 0.4", best first by the last metric."""
    def text(row: pd.Series, metric: str) -> str:
        spread = row.get(f"spread_{metric}")
        return f"{row[f'measured_{metric}']:.1f}" + ("" if pd.isna(spread) else f" ± {spread:.1f}")

    frame = frame.sort_values(f"measured_{list(metrics)[-1]}", ascending=False)
    return pd.DataFrame([{"method": row["method"]} | {title: text(row, metric) for metric, title in metrics.items()}
                         for _, row in frame.iterrows()])


def ahead(frame: pd.DataFrame, metric: str, own: str = "D3AD") -> list[str]:
    """The methods with a higher mean than `own` in a metric, best first.

    frame: of `overall`, in percent.  metric: "i_auroc", "p_auroc" or "pro".  Raises KeyError where `own` isn't in the
    frame.
    """
    values = frame.set_index("method")[f"measured_{metric}"]
    return values[values > values[own]].sort_values(ascending=False).index.tolist()


def mean_ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean rank of each method over blocks, 1 = best: a row per method, a column per metric, and `blocks`, their
    number.

    A block is one run: a category, a split, a seed.  Only blocks that hold all methods count; ties share their mean
    rank.
    """
    single, block = frame[frame["category"] != "Average"], ["dataset", "category", "split", "seed"]
    whole = single.groupby(block)["method"].transform("nunique") == single["method"].nunique()
    columns = {f"measured_{metric}": metric for metric in ablations.METRICS}
    ranks = single[whole].groupby(block)[list(columns)].rank(ascending=False).rename(columns=columns)
    by_method = ranks.groupby(single["method"], sort=False)
    return by_method.mean().assign(blocks=by_method.size())


def critical_difference(num_methods: int, num_blocks: int) -> float:
    """How far two mean ranks must be apart to differ beyond chance, at 5 % (Nemenyi's test, Demsar 2006)."""
    return _range_quantile(num_methods) * (num_methods * (num_methods + 1) / (6 * num_blocks)) ** 0.5


@lru_cache
def _range_quantile(num_methods: int) -> float:
    """The 95 % quantile of the studentised range of so many methods, over the square root of 2."""
    # 1e6 stands for infinity, where scipy's takes a minute
    return float(studentized_range.ppf(0.95, num_methods, 1e6) / 2 ** 0.5)
