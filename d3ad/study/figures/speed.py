"""The benchmark's figures, one function each."""
import matplotlib.pyplot as plt
import pandas as pd

from d3ad.study.figures.look import BAD, GOOD, TEST, TRAIN, WIDTH

COLOURS = {"reference": "#888888", "faithful": TRAIN, "fast": BAD}
MARKERS = {"features": "o", "encode": "s", "eps": "^", "decode": "D"}


def roofline(rows: list[dict], written: dict[str, float] | None = None):
    """Rate of each part against its arithmetic intensity, below what memory and matrix units allow at most.

    rows: of inference.json, one machine and size; those of COLOURS that have "parts" are drawn.
    written: GFLOP of each part as its network is written (`networks.arithmetic`); where `faithful` does fewer, a hollow
    mark shows at which rate the written ones would have had to be done.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4))
    drawn = [row for row in rows if "parts" in row and row["preset"] in COLOURS]
    about = drawn[0]
    for precision, rate in about["matmul_gflops"].items():
        ridge = rate / about["copy_gb_per_s"]
        ax.plot([1, ridge, 2e5], [about["copy_gb_per_s"], rate, rate], color="#444444", lw=1)
        ax.annotate(f"matrix multiplications, {precision}: {rate} GFLOP/s", (1.8e5, rate), xytext=(0, 3),
                    textcoords="offset points", ha="right", fontsize=7)
    ax.annotate(f"memory: {about['copy_gb_per_s']} GB/s", (2, 2 * about["copy_gb_per_s"]), xytext=(4, -10),
                textcoords="offset points", fontsize=7)
    for row in drawn:
        for part in row["parts"]:
            if part["part"] in MARKERS:
                look = dict(color=COLOURS[row["preset"]], marker=MARKERS[part["part"]], s=34, zorder=3)
                ax.scatter(part["flop_per_byte"], part["gflops"], **look)
                more = (written or {}).get(part["part"], 0) / part["gflop"]
                if row["preset"] == "faithful" and more > 1.01:
                    ax.scatter(more * part["flop_per_byte"], more * part["gflops"],
                               **look | dict(color="none", edgecolors=look["color"]))
    for name, marker in MARKERS.items():
        ax.scatter([], [], color="#444444", marker=marker, label={"eps": "UNet"}.get(name, name))
    for row in drawn:
        ax.scatter([], [], color=COLOURS[row["preset"]], marker="_", s=80,
                   label=f"{row['preset']} ({row['precision']})")
    if written:
        ax.scatter([], [], color="none", edgecolors="#444444", label="faithful, as written")
    ax.set(xscale="log", yscale="log", xlim=(1, 2e5), xlabel="FLOP per byte that has to move", ylabel="GFLOP/s")
    ax.legend(fontsize=7, ncol=2, loc="lower right")
    return fig


def growth(rows: list[dict]):
    """Time and memory against the number of photographs, of training images and of pixels, of growth.json."""
    fig, axes = plt.subplots(2, 3, figsize=(WIDTH, 4.2), sharex="col", layout="constrained")
    names = {"photographs": "photographs in a folder", "training images": "training images of Algorithm 2",
             "pixels": "pixels a side"}
    what = {"photographs": "seconds for all", "training images": "seconds for 16 images",
            "pixels": "seconds for one image"}
    for (axis, name), (upper, lower) in zip(names.items(), axes.T):
        some = [row for row in rows if row["axis"] == axis]
        numbers = [row["number"] for row in some]
        upper.plot(numbers, [row["seconds"] for row in some], "o-", color=TRAIN, ms=4)
        lower.plot(numbers, [max(row["megabytes"], 1) for row in some], "o-", color=TEST, ms=4)
        upper.set(yscale="log", ylabel=what[axis])
        lower.set(xscale="log", yscale="log", ylabel="MB", xlabel=name)
        lower.set_xticks(numbers, [f"{number:,}" for number in numbers])
        lower.set_xticks([], minor=True)
    return fig


def quality_and_time(points: pd.DataFrame, metric: str, title: str):
    """Quality against time per image, one point per preset or baseline.

    points: columns method, milliseconds, kind ("preset" or "baseline") and measured_<metric>, in percent.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.8))
    points = points.dropna(subset=[f"measured_{metric}"])
    for kind, colour in (("baseline", TEST), ("preset", TRAIN)):
        some = points[points["kind"] == kind].sort_values("milliseconds")
        if some.empty:
            continue  # a profile may measure no baseline
        ax.scatter(some["milliseconds"], some[f"measured_{metric}"], color=colour, s=28, zorder=3, label=f"{kind}s")
        # what lies on nearly one spot shares a label; presets lie in a row, so their names rise to the right
        apart = some["milliseconds"] > 1.1 * some["milliseconds"].shift()
        spot = apart.cumsum() if kind == "preset" else some["method"]
        for i, (_, here) in enumerate(some.groupby(spot, sort=False)):
            where = dict(xytext=(0, 5), ha="left", va="bottom", rotation=30) if kind == "preset" else \
                dict(xytext=(5, 4 if i % 4 == 1 else -8), ha="left") if i % 2 else dict(xytext=(-5, -8), ha="right")
            place = here[["milliseconds", f"measured_{metric}"]].iloc[0]
            ax.annotate(", ".join(here["method"]), place, textcoords="offset points", fontsize=7, color="#333333",
                        **where)
    best = points.loc[points["method"] == "faithful"]
    ax.axhline(float(best[f"measured_{metric}"].iloc[0]) - 0.5, color=GOOD, lw=0.8, ls="--", zorder=1)
    ax.text(0.99, float(best[f"measured_{metric}"].iloc[0]) - 0.9, "half a point below faithful",
            transform=ax.get_yaxis_transform(), fontsize=6.5, color=GOOD, va="top", ha="right")
    lowest = min(points[f"measured_{metric}"])
    ax.set(xscale="log", xlabel="milliseconds per image", ylabel=f"{title}, %", ylim=(lowest - 5, 105),
           yticks=range(0, 101, 20 if lowest < 60 else 5))
    ax.set_ylim(lowest - 5, 105)  # ticks beyond would widen it
    ax.margins(x=0.12)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_xticks([tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
                   if points["milliseconds"].min() / 1.3 < tick < 1.3 * points["milliseconds"].max()])
    ax.legend(fontsize=7, loc="lower right")
    return fig
