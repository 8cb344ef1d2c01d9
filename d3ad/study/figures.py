"""Figures: one function each.  They take tensors and numbers, and return a matplotlib figure."""
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import ConnectionPatch, FancyBboxPatch
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

plt.style.use(Path(__file__).with_name("d3ad.mplstyle"))
TRAIN, TEST, GOOD, BAD = "#0072B2", "#E69F00", "#009E73", "#D55E00"
MASK = ListedColormap(["#3b0f52", "#ffe119"])  # as in the paper: yellow on violet
WIDTH = 7.2  # inches, a page's text width


def to_picture(image: Tensor) -> np.ndarray:
    """An image (3, H, W) around [-1, 1] as (H, W, 3) in [0, 1]; values beyond are cut."""
    return ((image.detach().float().cpu() + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()


def latent_picture(z: Tensor, scale: float = 2.5) -> np.ndarray:
    """A latent (C, h, w) as (h, w, 3) in [0, 1]: its first three channels as colours, +-scale the full range."""
    channels = z[:3] if len(z) >= 3 else z[:1].expand(3, -1, -1)
    return ((channels.detach().float().cpu() / scale + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()


def show(ax, picture, title: str = "", frame: str | None = None, **options) -> None:
    """A picture without axes; `frame` draws a coloured border."""
    ax.imshow(to_picture(picture) if isinstance(picture, Tensor) and picture.ndim == 3 else np.asarray(picture),
              **options)
    ax.set(xticks=[], yticks=[], title=title)
    for spine in ax.spines.values():
        spine.set(visible=frame is not None, color=frame or "none", linewidth=2)


def outline(ax, mask, colour: str = "#ffe119") -> None:
    """The contour of a mask (H, W), where it has any pixel."""
    mask = np.asarray(mask, dtype=float)
    if 0 < mask.sum() < mask.size:
        ax.contour(mask, levels=[0.5], colors=colour, linewidths=1)


def row_label(ax, text: str) -> None:
    """A label left of a row of pictures."""
    ax.text(-0.08, 0.5, text, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=8)


def image_grid(rows: list[list], row_labels: list[str], column_titles: list[str], cell: float | None = None):
    """Rows of pictures with labels left of them and titles above the first row."""
    cell = cell or WIDTH / max(map(len, rows))
    columns = max(map(len, rows))
    fig, axes = plt.subplots(len(rows), columns, figsize=(cell * columns, cell * len(rows) + 0.25), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for i, row in enumerate(rows):
        for j, ax in enumerate(axes[i]):
            ax.axis("off") if j >= len(row) else show(ax, row[j], column_titles[j] if i == 0 else "")
        row_label(axes[i, 0], row_labels[i])
    return fig


def forward_process(rows: dict[str, list[Tensor]], steps: list[int]):
    """Figures 11, 12, 13: images (3, H, W) at growing steps, a row per category."""
    return image_grid(list(rows.values()), list(rows), [f"$t={t}$" for t in steps])


def schedule(alpha_bar: Tensor, t_max: int):
    """What the schedule does: the signal's and the noise's share over t, and the part that inference uses."""
    t = np.arange(len(alpha_bar))
    fig, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.4))
    for ax in (left, right):
        ax.plot(t, alpha_bar.sqrt(), label=r"signal $\sqrt{\bar\alpha_t}$")
        ax.plot(t, (1 - alpha_bar).sqrt(), label=r"noise $\sqrt{1-\bar\alpha_t}$")
        ax.axvspan(0, t_max, color="#56B4E9", alpha=0.25, lw=0, label=rf"used: $t\leq T_{{max}}={t_max}$")
        ax.set(xlabel="step $t$", ylim=(0, 1.02))
    left.set(title="the whole schedule", xlim=(0, len(t) - 1))
    right.set(title="where inference takes place", xlim=(0, 2 * t_max))
    right.legend(loc="center right")
    return fig


def dynamic_conditioning(images: Tensor, scaled: Tensor, distances: Tensor, t_hat: Tensor, train_distances: Tensor,
                         edges: Tensor, t_max: int, labels: list[str]):
    """Figure 2: how far each image lies from the training images, and how far it is perturbed therefore."""
    count = len(images)
    fig = plt.figure(figsize=(WIDTH, 3.9))
    grid = fig.add_gridspec(2, 2 * count, height_ratios=[1, 1.3])
    axis = fig.add_subplot(grid[1, :])
    axis.hist(train_distances.numpy(), bins=edges.numpy(), color=TRAIN, alpha=0.55)
    for edge in edges:
        axis.axvline(float(edge), color="#999999", lw=0.5, zorder=0)
    axis.set(xlabel=r"mean distance $\bar{y}_0$ to the $K$ nearest training images (blue: in their bins; "
             "orange: the images above)", ylabel="training images")
    top = 1.35 * axis.get_ylim()[1]
    axis.set_ylim(0, top)
    for i in range(count):
        left, right = fig.add_subplot(grid[0, 2 * i]), fig.add_subplot(grid[0, 2 * i + 1])
        show(left, images[i], labels[i])
        show(right, scaled[i], rf"$\hat{{T}}={int(t_hat[i])}$ of {t_max}")
        x = float(distances[i])
        axis.axvline(x, color=TEST, lw=2)
        fig.add_artist(ConnectionPatch((x, top), (1.0, -0.03), "data", "axes fraction", axesA=axis, axesB=left,
                                       color=TEST, lw=1, ls=":"))
    return fig


def architecture(x0: Tensor, z0: Tensor, z_scaled: Tensor, z_hat: Tensor, x_hat: Tensor, t_hat: int, distance: float,
                 train_distances: Tensor, edges: Tensor, num_steps: int, block: int = 2):
    """Figure 3: the way of one image through the detector, every panel computed by it."""
    fig, ax = plt.subplots(figsize=(WIDTH, 3.5), layout="none")
    ax.set(xlim=(0, 100), ylim=(0, 48))
    ax.axis("off")
    fig.subplots_adjust(0.005, 0.01, 0.995, 0.99)

    def panel(x, y, picture, title, size=14):
        inset = ax.inset_axes((x, y, size, size), transform=ax.transData)
        show(inset, picture)
        ax.text(x + size / 2, y - 1.2, title, ha="center", va="top", fontsize=9)

    def box(x, y, text, colour, width=7.5, height=6):
        ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.3", fc=colour, ec="none", alpha=0.9))
        ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="white", fontsize=9)

    def arrow(x0, y0, x1, y1, text=""):
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=dict(arrowstyle="-|>", color="#444444", lw=1.2))
        ax.text((x0 + x1) / 2, y0 + 1, text, ha="center", va="bottom", fontsize=8)

    panel(0.5, 4, x0, "input $x_0$")
    arrow(15, 11, 17, 11)
    box(17.6, 8, r"$\mathcal{E}$", TRAIN, 3)
    arrow(21.2, 11, 23.2, 11)
    panel(23.4, 5.5, latent_picture(z0), r"latent $z_0$", 11)
    arrow(35, 11, 42, 11, r"$\times\sqrt{\bar\alpha_{\hat T}}$")
    panel(42.4, 5.5, latent_picture(z_scaled), r"only scaled, $z_{\hat T}$", 11)
    arrow(54, 11, 56, 11)
    box(56.5, 8, f"denoise\n{num_steps} steps", GOOD, 8)
    arrow(65.2, 11, 67.2, 11)
    panel(67.4, 5.5, latent_picture(z_hat), r"$\hat z_0$", 11)
    arrow(78.8, 11, 80.4, 11)
    box(80.9, 8, r"$\mathcal{D}$", TRAIN, 3)
    arrow(84.4, 11, 85.6, 11)
    panel(85.8, 4, x_hat, r"reconstruction $\hat x_0$", 14)

    arrow(7.5, 18.8, 7.5, 27)
    box(1.6, 27.6, rf"features $\phi_{block}$", BAD, 11.8)
    arrow(14.4, 30.6, 21.5, 30.6)
    histogram = ax.inset_axes((25, 25, 27, 19), transform=ax.transData)
    histogram.hist(train_distances.numpy(), bins=edges.numpy(), color=TRAIN, alpha=0.6)
    histogram.axvline(distance, color=TEST, lw=2)
    histogram.set(yticks=[], title=r"distance to the $K$ nearest, in bins")
    histogram.tick_params(labelsize=6)
    arrow(53, 34, 59, 34)
    ax.text(60, 34, rf"$\hat T = {t_hat}$", va="center", fontsize=13, color=BAD)
    ax.annotate("", (39.5, 15.4), (62.5, 31.5), arrowprops=dict(arrowstyle="-|>", color=BAD, lw=1.2, ls="--",
                                                              connectionstyle="arc3,rad=-0.15"))
    ax.text(75, 42, "dynamic implicit conditioning (Algorithm 2)", ha="center", fontsize=9, color="#444444")
    ax.text(75, 25, "reconstruction (Algorithm 1)", ha="center", fontsize=9, color="#444444")
    return fig


def losses(curves: dict[str, list[float]]):
    """Training losses over steps, with a running mean; one panel per network."""
    fig, axes = plt.subplots(1, len(curves), figsize=(WIDTH, 2.2), squeeze=False)
    for ax, (name, values) in zip(axes[0], curves.items()):
        values = np.asarray(values)
        width = max(len(values) // 20, 1)
        ax.plot(values, color=TRAIN, alpha=0.3, lw=0.8)
        smooth = np.convolve(values, np.ones(width) / width, "valid")
        ax.plot(np.arange(len(smooth)) + width - 1, smooth, color=TRAIN)
        ax.set(title=name, xlabel="step", yscale="log" if values.min() > 0 and values.max() > 5 * values.min()
               else "linear")
    axes[0, 0].set_ylabel("loss")
    return fig


def bin_histograms(panels: dict[str, tuple[Tensor, Tensor, Tensor]], num_bins: int, columns: int = 4):
    """Figures 5 and 16: share of images per bin, training and test, a panel per category.

    panels: title to (training bins, test bins, test labels), bins in 0..num_bins.
    """
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(WIDTH, 1.7 * rows + 0.4), squeeze=False, sharex=True)
    edges = np.arange(num_bins + 2) - 0.5
    for ax, (title, (train, test, labels)) in zip(axes.flat, panels.items()):
        options = dict(bins=edges, stat="percent", ax=ax, linewidth=0, alpha=0.55)
        sns.histplot(x=train.numpy(), color=TRAIN, label="training", **options)
        sns.histplot(x=test.numpy(), color=TEST, label="test", **options)
        for value, name, colour in ((0, "good", GOOD), (1, "anomalous", BAD)):
            mean = float(test[labels == value].float().mean())
            ax.axvline(mean, color=colour, lw=1.5, ls="--", label=f"mean of {name} test images")
        ax.set(title=title, xlabel="", ylabel="", xticks=range(0, num_bins + 1, 2))
    for ax in axes.flat[len(panels):]:
        ax.axis("off")
    for ax in axes[:, 0]:
        ax.set_ylabel("% of images")
    for ax in axes.flat[max(0, len(panels) - columns):len(panels)]:
        ax.set_xlabel("bin")
        ax.tick_params(labelbottom=True)
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4)
    return fig


def mask_comparison(rows: list[dict], columns: list[str]):
    """Figure 6: input, ground truth, then each setting's mask over the input.

    rows: {"label", "image" (3, H, W), "mask" (H, W), and column name to (predicted mask (H, W), title)}.
    """
    count = len(columns) + 2
    cell = WIDTH / count
    fig, axes = plt.subplots(len(rows), count, figsize=(WIDTH, (cell + 0.12) * len(rows) + 0.3), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for i, row in enumerate(rows):
        show(axes[i, 0], row["image"], "input" if i == 0 else "")
        row_label(axes[i, 0], row["label"])
        show(axes[i, 1], row["mask"].float(), "ground truth" if i == 0 else "", cmap="gray", vmin=0, vmax=1)
        for ax, column in zip(axes[i, 2:], columns):
            predicted, note = row[column]
            show(ax, predicted.float(), column if i == 0 else "", cmap="gray", vmin=0, vmax=1)
            outline(ax, row["mask"])
            ax.set_xlabel(note, fontsize=7, labelpad=1)
    return fig


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
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.19 * len(frame) + 0.8), sharey=True)
    for ax, (name, title) in zip(axes, metrics.items()):
        ax.scatter(frame[f"measured_{name}"], frame["method"], color=colours, s=18, zorder=3)
        ax.set(title=f"{title}, %")
        ax.xaxis.grid(True)
        ax.yaxis.grid(True, color="#eeeeee")
    axes[0].tick_params(axis="y", labelsize=7.5)
    return fig


def rank_plot(ranks, critical: float, metrics: dict[str, str], own: str = "D3AD"):
    """Mean ranks of all methods, best on top; methods inside the band around `own` differ from it by less than chance
    explains.

    ranks: of `comparison.mean_ranks`.  critical: the critical difference of two mean ranks.
    """
    ranks = ranks.sort_values(list(metrics)[-1], ascending=False)
    colours = [BAD if method.startswith(own) else TRAIN for method in ranks.index]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.19 * len(ranks) + 0.8), sharey=True)
    for ax, (name, title) in zip(axes, metrics.items()):
        centre = float(ranks.loc[own, name])
        ax.axvspan(centre - critical, centre + critical, color=BAD, alpha=0.12, lw=0)
        ax.scatter(ranks[name], ranks.index, color=colours, s=18, zorder=3)
        ax.set(title=title, xlabel="mean rank, 1 is best", xlim=(0.5, len(ranks) + 0.5))
        ax.yaxis.grid(True, color="#eeeeee")
    axes[0].tick_params(axis="y", labelsize=7.5)
    return fig


def omega_curves(frame, seed: int, metrics: dict[str, str]):
    """Figure 14: each metric over the share of noise omega.

    frame: columns omega, category, seed and the metrics.  Thin: the categories of `seed`; thick: their mean; the band
    is the standard deviation over seeds of the mean over those categories that were measured with every seed, at those
    omegas, drawn around their own mean (dashed) over all seeds.
    """
    own = frame[frame["seed"] == seed]
    several = frame[frame.groupby(["category", "omega"])["seed"].transform("nunique") == frame["seed"].nunique()]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 2.6))
    for ax, (column, title) in zip(axes, metrics.items()):
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


@dataclass
class Cell:
    """One picture of a table of pictures: an image (3, H, W) in [-1, 1], a map (H, W), or a mask (H, W) bool.

    outline: a mask drawn as a line over it.  vmax: the value of a map that is brightest.
    """

    picture: Tensor
    outline: Tensor | None = None
    vmax: float | None = None
    note: str = ""


def picture_table(rows: list[list[Cell | None]], row_labels: list[str], column_titles: list[str], width: float = WIDTH):
    """Rows of pictures under column titles; None is a panel that says "not measured in this profile".

    Figures 1, 4, 7-10 and 15.
    """
    columns = len(column_titles)
    cell = min(width / (columns + 0.25), 1.2)
    notes = any(c is not None and c.note for row in rows for c in row)
    fig, axes = plt.subplots(len(rows), columns, figsize=(cell * (columns + 0.25),
                                                          (cell + 0.14 * notes) * len(rows) + 0.3), squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for i, row in enumerate(rows):
        for j, (ax, c) in enumerate(zip(axes[i], row)):
            title = column_titles[j] if i == 0 else ""
            if c is None:
                ax.text(0.5, 0.5, "not\nmeasured", ha="center", va="center", fontsize=7, color="#777777",
                        transform=ax.transAxes)
                show(ax, np.ones((2, 2)), title, frame="#cccccc", cmap="gray", vmin=0, vmax=1)
                continue
            _show_cell(ax, c, title)
        row_label(axes[i, 0], row_labels[i])
    return fig


def _show_cell(ax, c: Cell, title: str) -> None:
    if c.picture.ndim == 3:
        show(ax, c.picture, title)
    elif c.picture.dtype == torch.bool:
        show(ax, c.picture.float(), title, cmap=MASK, vmin=0, vmax=1)
    else:
        show(ax, c.picture, title, cmap="magma", vmin=0, vmax=c.vmax or float(c.picture.max()) or 1)
    if c.outline is not None:
        outline(ax, c.outline, "#ffffff" if c.picture.ndim == 2 else "#ffe119")
    if c.note:
        ax.set_xlabel(c.note, fontsize=7, labelpad=1)


def scaled_and_noised(examples: dict[str, dict], levels: list[int]):
    """Figure 15: an input, and what comes of it from rising levels; left only scaled, right noised.

    examples: name to {"image": (3, H, W), "mask": (H, W) bool, "scaled": ..., "noised": ...}; the last two are what
    `ablations.perturbed` gives for this one image, a dict per level.  The latent maps of one example share one scale.
    """
    rows, labels = [], []
    for name, example in examples.items():
        found = example["scaled"] + example["noised"]
        brightest = max(float(level["latent_map"].max()) for level in found)
        blank = Cell(torch.ones_like(example["image"]))
        rows += [[Cell(example["image"], example["mask"])] + [Cell(level["disturbed"][0]) for level in found],
                 [blank] + [Cell(level["reconstruction"][0]) for level in found],
                 [blank] + [Cell(level["latent_map"][0], vmax=brightest) for level in found]]
        labels += [f"{name}\ndisturbed", "reconstruction", "latent map"]
    titles = [f"{side}\n$T={level}$" for side in ("scaled", "noised") for level in levels]
    return picture_table(rows, labels, ["input", *titles])


def effects(frame, metrics: dict[str, str]):
    """What each switch between text and code changes, in points: a row per switch, a panel per metric."""
    labels = [f"{row.difference}: {row.changed_to}" for row in frame.itertuples()]
    fig, axes = plt.subplots(1, len(metrics), figsize=(WIDTH, 0.24 * len(frame) + 0.7), sharex=True, sharey=True)
    for ax, (column, title) in zip(axes, metrics.items()):
        values = frame[column].astype(float)
        ax.barh(labels, values, color=[GOOD if v >= 0 else BAD for v in values.fillna(0)], height=0.7)
        ax.axvline(0, color="#444444", lw=0.8)
        ax.set(title=title, xlabel="points")
        ax.xaxis.grid(True)
        ax.margins(x=0.1)
    axes[0].invert_yaxis()
    axes[0].tick_params(axis="y", labelsize=7)
    return fig


def verdicts(frame):
    """The ledger at a glance: how many claims have which verdict."""
    colours = {"reproduced": "#00664B", "holds": GOOD, "contradicted": BAD, "inconclusive": TEST,
               "not tested": "#999999"}
    counts = frame["verdict"].value_counts()
    fig, ax = plt.subplots(figsize=(WIDTH, 0.7))
    left = 0
    for name, colour in colours.items():
        width = int(counts.get(name, 0))
        ax.barh([""], [width], left=left, color=colour)
        if width:
            ax.text(left + width / 2, 0, f"{name}: {width}", ha="center", va="center", color="white", fontsize=8)
        left += width
    ax.axis("off")
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
    """Every tested claim that is measured in points: its interval around the margin, a row per claim.

    frame: a ledger of `verdicts.judged`.  Filled: the interval excludes the margin, after Holm's correction.
    """
    frame = frame[frame["verdict"] != "not tested"].iloc[::-1]
    colours = {"reproduced": "#00664B", "holds": GOOD, "contradicted": BAD}
    fig, ax = plt.subplots(figsize=(WIDTH, 0.2 * len(frame) + 0.7))
    for i, row in enumerate(frame.itertuples()):
        colour = colours.get(row.verdict, "#999999")
        ax.plot([row.low - row.margin, row.high - row.margin], [i, i], color=colour, lw=2)
        ax.plot(row.effect - row.margin, i, "o", color=colour, ms=4)
    ax.axvline(0, color="#444444", lw=0.8, ls="--")
    ax.set(yticks=range(len(frame)), xlabel="effect beyond the margin, in the claim's own unit", xscale="symlog")
    ax.set_yticklabels(frame["claim"], fontsize=6.5)
    ax.xaxis.grid(True)
    return fig


def pairs(rows: dict[str, Tensor], count: int = 8):
    """Rows of images, such as inputs above their reconstructions."""
    return image_grid([list(images[:count]) for images in rows.values()], list(rows), [""] * count)


def scores_by_kind(table):
    """The score of each part in units of the threshold, a row of dots per kind; right of the line is flagged.

    table: columns kind, anomalous, score.
    """
    kinds = list(dict.fromkeys(table["kind"]))
    fig, ax = plt.subplots(figsize=(WIDTH, 0.3 * len(kinds) + 0.8))
    sns.stripplot(data=table, x="score", y="kind", order=kinds, hue="anomalous", palette={False: GOOD, True: BAD},
                  size=4, alpha=0.8, jitter=0.2, legend=False, ax=ax)
    ax.axvline(1, color="#444444", lw=1.2, ls="--")
    ax.set(xscale="log", xlabel="score, in units of the threshold", ylabel="")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.yaxis.grid(True, color="#eeeeee")
    return fig
