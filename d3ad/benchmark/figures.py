"""The benchmark's figures, one function each."""
import matplotlib.pyplot as plt
import pandas as pd

from d3ad.plotting import BAD, GOOD, TEST, TRAIN, WIDTH

COLOURS = {"naive": "#888888", "faithful": TRAIN, "fast": BAD}
MARKERS = {"features": "o", "encode": "s", "eps": "^", "decode": "D"}


def roofline(rows: list[dict]):
    """Rate of each part against its arithmetic intensity, below what memory and matrix units allow at most.

    rows: of inference.json, one machine and size; those with "parts" are drawn.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.4))
    drawn = [row for row in rows if "parts" in row]
    about = drawn[0]
    for precision, rate in about["matmul_gflops"].items():
        ridge = rate / about["copy_gb_per_s"]
        ax.plot([1, ridge, 1e5], [about["copy_gb_per_s"], rate, rate], color="#444444", lw=1)
        ax.annotate(f"matrix products, {precision}: {rate} GFLOP/s", (9e4, rate), xytext=(0, 3), textcoords="offset points", ha="right", fontsize=7)
    ax.annotate(f"memory: {about['copy_gb_per_s']} GB/s", (2, 2 * about["copy_gb_per_s"]), xytext=(4, -10), textcoords="offset points", fontsize=7)
    for row in drawn:
        for part in row["parts"]:
            if part["part"] in MARKERS:
                ax.scatter(part["flop_per_byte"], part["gflops"], color=COLOURS[row["preset"]], marker=MARKERS[part["part"]], s=34, zorder=3)
    for name, marker in MARKERS.items():
        ax.scatter([], [], color="#444444", marker=marker, label={"eps": "UNet"}.get(name, name))
    for row in drawn:
        ax.scatter([], [], color=COLOURS[row["preset"]], marker="_", s=80, label=f"{row['preset']} ({row['precision']})")
    ax.set(xscale="log", yscale="log", xlim=(1, 1e5), xlabel="FLOP per byte that has to move", ylabel="GFLOP/s")
    ax.legend(fontsize=7, ncol=2, loc="lower right")
    return fig


def quality_and_time(points: pd.DataFrame, metric: str, title: str):
    """Quality against time per image, one point per preset or rival.

    points: columns method, milliseconds, kind ("preset" or "rival") and measured_<metric>, in percent.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 3.6))
    for kind, colour in (("rival", TEST), ("preset", TRAIN)):
        some = points[points["kind"] == kind].sort_values(f"measured_{metric}")
        ax.scatter(some["milliseconds"], some[f"measured_{metric}"], color=colour, s=28, zorder=3, label=f"{kind}s")
        for i, row in enumerate(some.itertuples()):
            left = i % 2
            ax.annotate(row.method, (row.milliseconds, getattr(row, f"measured_{metric}")), xytext=(-5 if left else 5, 4 if left else -8),
                        textcoords="offset points", ha="right" if left else "left", fontsize=7, color="#333333")
    best = points.loc[points["method"] == "faithful"]
    ax.axhline(float(best[f"measured_{metric}"].iloc[0]) - 0.5, color=GOOD, lw=0.8, ls="--", zorder=1)
    ax.text(0.01, float(best[f"measured_{metric}"].iloc[0]) - 0.5, "half a point below faithful", transform=ax.get_yaxis_transform(), fontsize=6.5,
            color=GOOD, va="bottom")
    ax.set(xscale="log", xlabel="milliseconds per image", ylabel=f"{title}, %")
    ax.legend(fontsize=7, loc="lower right")
    return fig
