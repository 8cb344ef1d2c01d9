"""The comparisons that the notebooks draw: which settings they compare, and what was measured, as tables in percent.

A variant is a dict of settings that differ from the profile's; `summary` measures variants on runs.  The columns are
`measured_*`, and `spread_*` for standard deviations over seeds.
"""

import pandas as pd

from d3ad.config import Config
from d3ad.study.jobs import prepare
from d3ad.study.workspace import Run, Workspace

TITLES = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "pro": "PRO"}
METRICS = tuple(TITLES)
AS_REPORTED = (*METRICS, "pro_200")  # with the PRO that a published one is compared with
BENCHMARK = {"D3AD": {}, "D3AD, fully noised": dict(omega=1.0)}
NAMED_STEPS = ("25% (20)", "100% (80)")  # those of Table 4 that the paper's text compares with by name
OMEGAS = tuple(round(0.1 * i, 1) for i in range(11))  # Eq. 11, Figure 14


def table4(config: Config) -> dict[str, dict]:
    """The settings that Table 4 compares, under the paper's names: fixed quarters of T_max, and the dynamic step."""
    quarters = {f"{25 * i}% ({20 * i})": dict(dynamic=False, t_max=round(config.t_max * i / 4)) for i in (1, 2, 3, 4)}
    return {**quarters, "DIC": {}}


def table5(config: Config) -> dict[str, dict]:
    """The settings that Table 5 compares: DS, the input is only scaled (downscaling); DA, the features are adapted.

    A profile that leaves the adaptation off is measured with one epoch of it.
    """
    adapted = dict(adapt_epochs=config.adapt_epochs or 1)
    return {"no DS, no DA": dict(omega=1.0, adapt_epochs=0), "DS": dict(adapt_epochs=0),
            "DA": dict(omega=1.0) | adapted, "DS + DA": adapted}


def seeded(config: Config) -> dict[str, dict]:
    """What is measured with several seeds, for the ledger of claims."""
    return {**BENCHMARK, **table5(config), **{name: table4(config)[name] for name in NAMED_STEPS}}


def summary(workspace: Workspace, variants: dict[str, dict], runs: list[Run] | None = None,
            columns: tuple[str, ...] = METRICS) -> pd.DataFrame:
    """One row per (dataset, category, split, seed, method), metrics in percent; computes what is missing, in parallel.

    columns: which of the numbers.
    """
    runs = workspace.runs() if runs is None else runs
    prepare(runs, list(variants.values()))
    rows = []
    for run in runs:
        rows += [row(run, method, run.numbers(**changes), columns) for method, changes in variants.items()]
    return pd.DataFrame(rows)


def row(run: Run, method: str, numbers: dict, columns: tuple[str, ...] = METRICS) -> dict:
    """One row of `summary`: whose numbers these are, and the numbers in percent."""
    percent = {f"measured_{name}": float("nan") if numbers[name] is None else 100 * numbers[name] for name in columns}
    return dict(dataset=run.workspace.title(run.name), category=run.category, split=run.split, seed=run.config.seed,
                method=method, **percent)


def with_averages(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `summary` and, behind each dataset and split, its means over categories and seeds as "Average".

    `spread_*` is the standard deviation of the categories' mean over seeds, empty where there is one seed.  Where there
    are several datasets, "all datasets" averages over all their categories, or "all synthetic" where they are.
    """
    values = [column for column in frame if column.startswith("measured_")]

    def average(rows: pd.DataFrame, **names) -> pd.DataFrame:
        per_seed = rows.groupby(["method", "seed"], sort=False)[values].mean()
        mean, spread = (getattr(per_seed.groupby("method", sort=False), how)() for how in ("mean", "std"))
        spread.columns = [column.replace("measured_", "spread_") for column in values]
        return mean.join(spread).reset_index().assign(category="Average", **names)

    parts = []
    for (dataset, split), rows in frame.groupby(["dataset", "split"], sort=False):
        parts += [rows, average(rows, dataset=dataset, split=split)]
    if frame["dataset"].nunique() > 1:
        synthetic = frame["dataset"].str.endswith("-like").all()
        parts.append(average(frame, dataset="all synthetic" if synthetic else "all datasets",
                             split=frame["split"].iloc[0]))
    return pd.concat(parts, ignore_index=True).astype({"seed": "Int64"})


def benchmark_runs(workspace: Workspace) -> list[Run]:
    """The runs of the large comparisons: every seed and split of the magnetic tiles, else the profile's seed."""
    if "mtd" not in workspace.study.datasets:
        return workspace.runs()
    seeds = range(workspace.config.seed, workspace.config.seed + workspace.study.seeds)
    # the split that counts comes first
    return [run for split in ("by_tile", "random") for seed in seeds for run in workspace.runs(seed=seed, split=split)]


def against_noise(workspace: Workspace) -> pd.DataFrame:
    """D3AD against itself with noise, on `benchmark_runs`."""
    return with_averages(summary(workspace, BENCHMARK, benchmark_runs(workspace)))


def seeds(workspace: Workspace) -> pd.DataFrame:
    """The variants of `seeded` on `ledger_runs`, with PRO by size of defect and the AUROC of Algorithm 2's distance."""
    columns = (*METRICS, "pro_small", "pro_medium", "pro_large", "distance_auroc")
    return summary(workspace, seeded(workspace.config), workspace.ledger_runs(), columns=columns)


def better_fixed(frame: pd.DataFrame) -> dict[str, str]:
    """Metric to the fixed step with the best mean, of two equal ones the lower.  frame: of `steps_on_validation`."""
    means = method_means(frame)
    return {metric: means[f"measured_{metric}"].idxmax() for metric in METRICS}


def two_samplers(workspace: Workspace) -> pd.DataFrame:
    """Table 4 with one sampler for all steps, and with the authors' second one for fixed steps (`second_sampler`).

    On the runs of the profile's own seed that spreads are taken over; means over categories: a row per step, columns
    measured_* of the one sampler, second_* of the other.  The features are adapted anew with the sampler.
    """
    runs = [run for run in workspace.seed_runs() if run.config.seed == workspace.config.seed]
    one = table4(workspace.config)
    two = {name: changes | dict(second_sampler=True) for name, changes in one.items()}
    means = [method_means(summary(workspace, variants, runs)) for variants in (one, two)]
    return means[0].join(means[1].rename(columns=lambda name: name.replace("measured_", "second_"))).reset_index()


def omega_sweep(workspace: Workspace) -> pd.DataFrame:
    """Figure 14: every omega of Eq. 11 on every run, and every second one with further seeds; with a column `omega`.

    Where the profile adapts its features, they are adapted anew for each omega (`Run.variant`).
    """
    further = [run for run in workspace.seed_runs() if run.config.seed != workspace.config.seed]
    variants = {str(omega): dict(omega=omega) for omega in OMEGAS}
    every_second = {str(omega): variants[str(omega)] for omega in OMEGAS[::2]}
    frame = pd.concat([summary(workspace, variants), summary(workspace, every_second, further)], ignore_index=True)
    return frame.assign(omega=frame["method"].astype(float), method="D3AD")


def titles(frame: pd.DataFrame) -> dict[str, str]:
    """The metrics that rows of `summary` have numbers in, with what they are called; without masks I-AUROC only."""
    return {metric: title for metric, title in TITLES.items() if frame[f"measured_{metric}"].notna().any()}


def method_means(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over all categories and seeds, a row per method."""
    single = frame[frame["category"] != "Average"]
    return single.groupby("method", sort=False)[[column for column in frame if column.startswith("measured_")]].mean()


def leads(means: pd.DataFrame, own: str) -> pd.DataFrame:
    """How far one method is ahead of the best other one: a row per metric, with `own`, `best other`, `other` and
    `lead`.

    means: a row per method, a column per metric in percent.  own: a row's name.
    A metric that nothing was measured in, as where a dataset has no masks, gets no row.
    Raises KeyError where `means` has no such row.
    """
    means = means.dropna(axis=1, how="all")
    others = means.drop(index=own)
    return pd.DataFrame({"own": means.loc[own], "best other": others.idxmax(), "other": others.max(),
                         "lead": means.loc[own] - others.max()})


def component_gains(frame: pd.DataFrame) -> pd.DataFrame:
    """What each component of Table 5 adds, in points: a row per step from one combination to the next, a column per
    metric.

    frame: of `summary` over `table5`; its means over categories and seeds are compared.
    """
    means = method_means(frame).rename(columns=lambda name: name.removeprefix("measured_"))
    steps = {"DS alone": ("DS", "no DS, no DA"), "DA alone": ("DA", "no DS, no DA"),
             "DS on top of DA": ("DS + DA", "DA"), "DA on top of DS": ("DS + DA", "DS")}
    return pd.DataFrame({name: means.loc[after] - means.loc[before] for name, (after, before) in steps.items()}).T
