"""How long the demo's networks are trained, on validation data: synthetic images of another seed.

    python scripts/explore_budget.py [--budgets 1000/0/600,1000/1200/200] [--out DIR]

A budget is the autoencoder's steps / those of a UNet for all categories, from which each category's own sets out, or 0
/ those of each category's own.  What is trained is kept in the cache.  Writes docs/demo-budget.csv, a row for each
budget and category, where rows that stand there are not measured again; and docs/demo-budget.md.
"""
import argparse
from pathlib import Path

import pandas as pd
from csv_rows import append_rows, rows_in
from explore_demo import BAD, GOOD, validation

from d3ad.infra.files import ROOT, write_whole
from d3ad.study.ablations import METRICS
from d3ad.study.jobs import train
from d3ad.study.outcome import evaluate
from d3ad.study.readme.cells import in_one_cell, markdown_table
from d3ad.study.settings import settings_of
from d3ad.study.workspace import open_workspace

BUDGET = ("autoencoder_steps", "start_steps", "own_steps")
PAGE = """# How long the networks of `demo` are trained

[Back to the README](../README.md)

The paper trains each category's network alone, for 300 epochs on a GPU. `demo` should take minutes on two cores. So its
network is first trained on the good parts of all seven categories at once (`start_steps`), and each category's own goes
on from its weights (`own_steps`). Is that as good as training each from random weights? `scripts/explore_budget.py`
asks on synthetic images of another seed, which no result uses: {good} good and {bad} defective ones of each category.

{table}

{answer}

Steps are those of the autoencoder, of the network for all categories, and of each category's own; the last column adds
up all that the seven detectors take. I-AUROC, P-AUROC and PRO are means over the categories, in percent
([each one](demo-budget.csv)). `demo` has the line in bold. The profiles for real photographs train each category from
random weights.
"""


def measure(budget: tuple[int, int, int]) -> list[dict]:
    """A row for each category, in percent."""
    autoencoder_steps, start_steps, own_steps = budget
    own = dict(start_steps=start_steps, own_steps=own_steps) if start_steps else dict(
        start_steps=0, own_steps=0, train_steps=own_steps)
    runs = open_workspace("demo", autoencoder_steps=autoencoder_steps, **own).runs()
    train(runs)
    rows = []
    for run in runs:
        images, labels, masks = validation(run)
        numbers = evaluate(run.detector.predict(images), labels, masks)
        rows.append(dict(zip(BUDGET, budget)) | dict(category=run.category)
                    | {metric: round(100 * numbers[metric], 1) for metric in METRICS})
    return rows


def page(frame: pd.DataFrame) -> str:
    """docs/demo-budget.md."""
    config, study = settings_of("demo")
    chosen, lines, means = (config.autoencoder_steps, study.start_steps, study.own_steps), [], {}
    for budget, rows in frame.groupby(list(BUDGET), sort=False):
        steps = budget[0] + budget[1] + len(rows) * budget[2]
        means[budget] = rows[list(METRICS)].mean()
        mean = in_one_cell(means[budget])
        bold = "**" if budget == chosen else ""
        lines.append([f"{bold}{cell}{bold}" for cell in (*budget, mean, f"{steps:,}")])
    header = ["autoencoder", "all categories", "each", "I-AUROC / P-AUROC / PRO", "all steps"]
    longest = max((budget for budget in means if budget[1] == 0), key=sum)  # of those from random weights
    answer = "The line in bold isn't measured yet."
    if chosen in means:
        difference = " / ".join(f"{points:+.1f}" for points in means[chosen] - means[longest])
        answer = f"The line in bold against {longest[2]} steps each from random weights, in points: {difference}."
    return PAGE.format(good=GOOD, bad=BAD, table=markdown_table(header, lines), answer=answer)


def budgets(text: str) -> list[tuple[int, ...]]:
    """Budgets as they are typed, "1000/1200/200,1000/0/600"."""
    found = [tuple(int(steps) for steps in part.split("/")) for part in text.split(",")]
    if any(len(budget) != len(BUDGET) for budget in found):
        raise ValueError
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", default=[], type=budgets, help="AUTOENCODER/ALL/EACH, with commas between")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    file = options.out / "demo-budget.csv"
    for budget in options.budgets:
        if not any(tuple(int(row[name]) for name in BUDGET) == budget for row in rows_in(file)):
            append_rows(file, [*BUDGET, "category", *METRICS], measure(budget))
    write_whole(options.out / "demo-budget.md", page(pd.read_csv(file)))


if __name__ == "__main__":
    main()
