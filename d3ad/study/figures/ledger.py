"""The ledger of claims: verdicts and intervals."""
import matplotlib.pyplot as plt
import numpy as np

from d3ad.study.figures.look import BAD, GOOD, TRAIN, WIDTH

COLOURS = {"reproduced": "#00664B", "holds": GOOD, "contradicted": BAD, "inconclusive": "#999999",
           "not tested": "#dddddd"}


def verdicts(frame):
    """The ledger at a glance: how many claims have which verdict."""
    counts = frame["verdict"].value_counts()
    fig, ax = plt.subplots(figsize=(WIDTH, 0.9))
    left = 0
    for name, colour in COLOURS.items():
        width = int(counts.get(name, 0))
        if width:
            ax.barh([""], [width], left=left, color=colour, label=name)  # a name may be wider than its bar
            ax.text(left + width / 2, 0, width, ha="center", va="center", fontsize=8,
                    color="#333333" if name == "not tested" else "white")
        left += width
    ax.axis("off")
    fig.legend(loc="outside lower center", ncols=len(COLOURS), fontsize=8, frameon=False)
    return fig


def one_claim(values, margin: float, quantity: str):
    """A claim by hand: the draws of its effect, the middle 95 % of them, the estimate, and the margin.

    values: (1 + D,), the estimate first.  margin: in the same unit.
    The claim holds where the whole band lies right of the dashed margin.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 1.7))
    low, high = np.quantile(values[1:], (0.025, 0.975))
    ax.hist(values[1:], bins=40, color="#999999", alpha=0.7, label="draws")
    ax.axvspan(low, high, color=TRAIN, alpha=0.2, lw=0, label="95 % interval")
    ax.axvline(values[0], color=TRAIN, lw=2, label="estimate")
    ax.axvline(margin, color="#444444", lw=1.2, ls="--", label="margin")
    ax.set(xlabel=quantity, yticks=[])
    ax.legend(fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.3))
    return fig


def intervals(frame):
    """Every tested claim: its interval around the margin, a row per claim.

    frame: a ledger of `verdicts.judged`.  The colour is that of the verdict.
    """
    frame = frame[frame["verdict"] != "not tested"].iloc[::-1]
    fig, ax = plt.subplots(figsize=(WIDTH, 0.2 * len(frame) + 0.7))
    for i, row in enumerate(frame.itertuples()):
        colour = COLOURS[row.verdict]
        ax.plot([row.low - row.margin, row.high - row.margin], [i, i], color=colour, lw=2)
        ax.plot(row.effect - row.margin, i, "o", color=colour, ms=4)
    ax.axvline(0, color="#444444", lw=0.8, ls="--")
    ax.set(yticks=range(len(frame)), xlabel="effect beyond the margin, in the claim's own unit", xscale="symlog")
    ax.set_yticklabels(frame["claim"], fontsize=6.5)
    ax.xaxis.grid(True)
    return fig
