"""Where Algorithm 2's distance tells defects, where it is reversed, and what the dynamic step gives there."""
import pandas as pd

from d3ad.config import Config
from d3ad.study.readme import measured
from d3ad.study.readme.cells import markdown_table

PROFILE, DYNAMIC, FIXED = "mvtec-cpu", "DIC", "100% (80)"  # the two rows of Table 4


def distances(up: str) -> str:
    """The distance's AUROC and the I-AUROC with the dynamic and a fixed step, a row per category of `PROFILE`."""
    tables = [measured.table(PROFILE, name) for name in ("dic_separability", "seeds", "table4")]
    if any(table is None for table in tables):
        return "Not measured."
    rows = by_category(*tables, Config.profile(PROFILE).dic_block)
    table = markdown_table(["category", "the distance's AUROC, images as they are",
                            "as the detector sees them (at one brightness and contrast where `dic_normalise` is on)",
                            "I-AUROC, dynamic step", "I-AUROC, fixed step 80"],
                           [[row.Index, *(f"{value:.1f}" for value in row[1:])] for row in rows.itertuples()])
    return f"{table}\n\n{sentences(rows)}"


def by_category(separability: pd.DataFrame, seeds: pd.DataFrame, table4: pd.DataFrame, block: int) -> pd.DataFrame:
    """AUROC in percent, a row per category: of the distance `plain` and as `seen`, of the scores with each step.

    separability, seeds, table4: CSV files of results/.  block: of the features that the distance is taken in.
    """
    plain = separability[(separability["block"] == block) & (separability["pooling"] == "mean")]
    seen = seeds[seeds["method"] == "D3AD"].groupby("category")["measured_distance_auroc"].mean()
    steps = table4[table4["category"].isin(seen.index)].pivot(index="category", columns="method",
                                                               values="measured_i_auroc")
    return pd.DataFrame(dict(plain=plain.groupby("category")["measured_i_auroc"].last(), seen=seen,  # last: as adapted
                             dynamic=steps[DYNAMIC], fixed=steps[FIXED]))


def sentences(rows: pd.DataFrame) -> str:
    """Which categories of `by_category` have a reversed distance, and which step has the higher I-AUROC there."""
    below = rows[rows["seen"] < 50]
    found = [f"{row.Index}, where the {'fixed' if row.fixed > row.dynamic else 'dynamic'} step has the higher I-AUROC"
             for row in below.itertuples()]
    mended = "; one brightness and contrast for all images (`dic_normalise`) doesn't correct it" * bool(found)
    return ("Below 50, good test images lie on average farther from the training images than defective ones, and the "
            "dynamic step disturbs them more; close to 50 the distance hardly tells them apart. "
            f"In this run: {'; '.join(found) or 'nowhere'}{mended}.")
