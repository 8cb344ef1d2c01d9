"""Metrics of methods and settings, and scores of parts."""
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.ticker import LogLocator, NullLocator

from d3ad.study.figures.look import BAD, GOOD, TRAIN, WIDTH


def metric_bars(frame, metrics: dict[str, str], order: list[str]):
    """Grouped bars of metrics in percent, one group per metric; the points are the categories or the seeds."""
    long = frame.melt(id_vars=["method"], value_vars=list(metrics), var_name="metric", value_name="percent")
    return _grouped_bars(long.assign(metric=long["metric"].map(metrics)), "metric", "percent", order, "", "%")


def size_bars(frame, methods: list[str]):
    """PRO of small, medium and large regions; the points are the seeds.  frame: columns method, size, seed, pro."""
    return _grouped_bars(frame, "size", "pro", methods, "size of the region", "PRO, %")


def _grouped_bars(frame, x: str, y: str, methods: list[str], xlabel: str, ylabel: str):
    """Means as bars, a group per `x` and a colour per method, with each row of the frame as a point."""
    fig, ax = plt.subplots(figsize=(WIDTH, 2.8))
    options = dict(data=frame, x=x, y=y, hue="method", hue_order=methods, ax=ax)
    sns.barplot(**options, errorbar=None, alpha=0.75)
    sns.stripplot(**options, dodge=True, size=2.5, palette=["#333333"] * len(methods), legend=False, jitter=False)
    low = max(0, np.floor(frame[y].min() / 10) * 10 - 5)
    ax.set(xlabel=xlabel, ylabel=f"{ylabel} (axis from {low:.0f})", ylim=(low, 101))
    ax.yaxis.grid(True)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2 if xlabel else -0.12), ncols=4)
    return fig


def method_dots(frame, metrics: dict[str, str], own: str = "D3AD"):
    """Every method's mean of each metric, best on top of the last one.

    frame: a row per method, columns measured_*.
    own: methods whose names begin with it are drawn in another colour.
    """
    frame = frame.sort_values(f"measured_{list(metrics)[-1]}")
    colours = [BAD if method.startswith(own) else TRAIN for method in frame["method"]]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.19 * len(frame) + 0.8), sharey=True, squeeze=False)
    for ax, (name, title) in zip(axes[0], metrics.items()):
        ax.scatter(frame[f"measured_{name}"], frame["method"], color=colours, s=18, zorder=3)
        ax.set(title=f"{title}, %")
        ax.xaxis.grid(True)
        ax.yaxis.grid(True, color="#eeeeee")
    axes[0, 0].tick_params(axis="y", labelsize=7.5)
    return fig


def rank_plot(ranks, critical: float, metrics: dict[str, str], own: str = "D3AD"):
    """Mean ranks of all methods, best on top; methods inside the band around `own` differ from it by less than chance
    explains.

    ranks: of `ranking.mean_ranks`.  critical: the critical difference of two mean ranks.
    """
    ranks = ranks.sort_values(list(metrics)[-1], ascending=False)
    colours = [BAD if method.startswith(own) else TRAIN for method in ranks.index]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.19 * len(ranks) + 0.8), sharey=True, squeeze=False)
    for ax, (name, title) in zip(axes[0], metrics.items()):
        centre = float(ranks.loc[own, name])
        ax.axvspan(centre - critical, centre + critical, color=BAD, alpha=0.12, lw=0)
        ax.scatter(ranks[name], ranks.index, color=colours, s=18, zorder=3)
        ax.set(title=title, xlabel="mean rank, 1 is best", xlim=(0.5, len(ranks) + 0.5))
        ax.yaxis.grid(True, color="#eeeeee")
    axes[0, 0].tick_params(axis="y", labelsize=7.5)
    return fig


def omega_curves(frame, seed: int, metrics: dict[str, str]):
    """Figure 14: each metric over the share of noise omega.

    frame: columns omega, category, seed and the metrics.  Thin: the categories of `seed`; thick: their mean; the band
    is the standard deviation over seeds of the mean over those categories that were measured with every seed, at those
    omegas, drawn around their own mean (dashed) over all seeds.
    """
    own = frame[frame["seed"] == seed]
    several = frame[frame.groupby(["category", "omega"])["seed"].transform("nunique") == frame["seed"].nunique()]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.6), squeeze=False)
    for ax, (column, title) in zip(axes[0], metrics.items()):
        for _, rows in own.groupby("category", sort=False):
            ax.plot(rows["omega"], rows[column], color="#999999", lw=0.6)
        mean = own.groupby("omega")[column].mean()
        per_seed = several.groupby(["omega", "seed"])[column].mean().groupby("omega")
        at, spread = per_seed.mean(), per_seed.std()
        ax.fill_between(at.index, at - spread, at + spread, color=BAD, alpha=0.25, lw=0)
        ax.plot(at.index, at, color=BAD, lw=1.2, ls="--")
        ax.plot(mean.index, mean, color=TRAIN, lw=2, marker="o", ms=3)
        ax.set(title=f"{title}, %", xlabel=r"share of noise $\omega$", xlim=(-0.02, 1.02))
        ax.yaxis.grid(True)
    return fig


def effects(frame, metrics: dict[str, str]):
    """What each switch between text and code changes, in points: a row per switch, a panel per metric with an axis of
    its own.
    """
    labels = [f"{row.difference}: {row.changed_to}" for row in frame.itertuples()]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.24 * len(frame) + 0.7), sharey=True, squeeze=False)
    for ax, (column, title) in zip(axes[0], metrics.items()):
        values = frame[column].astype(float)
        bars = ax.barh(labels, values, color=[GOOD if v >= 0 else BAD for v in values.fillna(0)], height=0.7)
        ax.bar_label(bars, labels=["" if np.isnan(v) else f"{v:+.1f}" for v in values], fontsize=6, padding=2)
        ax.axvline(0, color="#444444", lw=0.8)
        ax.set(title=title, xlabel="points")
        ax.xaxis.grid(True)
        ax.margins(x=0.4)
    axes[0, 0].invert_yaxis()
    axes[0, 0].tick_params(axis="y", labelsize=7)
    return fig


def scores_by_kind(table):
    """The score of each part in units of the threshold, a row of dots per kind; right of the line is flagged.

    table: columns kind, anomalous, score.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.3 * len(kinds) + 0.8))
    np.random.seed(0)  # of the jitter, so that a second run draws the same picture
    sns.stripplot(data=table, x="score", y="kind", order=kinds, hue="anomalous", palette={False: GOOD, True: BAD},
                  size=4, alpha=0.8, jitter=0.2, legend=False, ax=ax)
    ax.axvline(1, color="#444444", lw=1.2, ls="--")
    ax.set(xscale="log", xlabel="score, in units of the threshold", ylabel="")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.grid(True, color="#eeeeee")
    return fig
