"""How the method works: the schedule, the dynamic step, the way of an image, the trainings."""
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patches import ConnectionPatch, FancyBboxPatch
from torch import Tensor

from d3ad.study.figures.look import BAD, GOOD, TEST, TRAIN, WIDTH
from d3ad.study.figures.pictures import latent_picture, show


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


def checkpoints(rows):
    """PRO and I-AUROC on validation images over the epochs of a training, rows of `checkpoints.over_training`."""
    fig, ax = plt.subplots(figsize=(WIDTH / 2, 2.4))
    for column, name, colour in (("validation_pro", "PRO", TRAIN), ("validation_i_auroc", "I-AUROC", GOOD)):
        ax.plot(rows["epochs"], rows[column], "o-", color=colour, label=name)
    ax.set(xlabel="epochs", ylabel="percent, on validation images", title=str(rows["category"].iloc[0]))
    ax.legend()
    return fig
