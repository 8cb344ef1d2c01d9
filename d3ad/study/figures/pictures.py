"""Pictures in rows: images, maps and masks."""
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Circle
from torch import Tensor

from d3ad.study.figures.look import WIDTH

MASK = ListedColormap(["#3b0f52", "#ffe119"])  # as in the paper: yellow on violet


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


def image_grid(rows: list[list], row_labels: list[str], column_titles: list[str]):
    """Rows of pictures with labels left of them and titles above the first row."""
    columns = max(map(len, rows))
    cell = WIDTH / columns
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


def pairs(rows: dict[str, Tensor], count: int = 8):
    """Rows of images, such as inputs above their reconstructions."""
    return image_grid([list(images[:count]) for images in rows.values()], list(rows), [""] * count)


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


@dataclass
class Cell:
    """One picture of a table of pictures: an image (3, H, W) in [-1, 1], a map (H, W), or a mask (H, W) bool.

    outline: a mask drawn as a line over it.  vmax: the value of a map that is brightest.  circle: the place (row,
    column) that a red circle marks.
    """

    picture: Tensor
    outline: Tensor | None = None
    vmax: float | None = None
    note: str = ""
    circle: tuple[int, int] | None = None


def picture_table(rows: list[list[Cell | None]], row_labels: list[str], column_titles: list[str], width: float = WIDTH):
    """Rows of pictures under column titles; None is a panel that says "not measured".

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
    if c.circle is not None:
        row, column = c.circle
        ax.add_patch(Circle((column, row), c.picture.shape[-1] / 8, fill=False, color="#D00000", lw=1.2))
    if c.note:
        ax.set_xlabel(c.note, fontsize=7, labelpad=1)


def scaled_and_noised(examples: dict[str, dict], levels: list[int]):
    """Figure 15: an input, and what comes of it from rising levels; left only scaled, right noised.

    examples: name to what `looks.side_by_side` gives.  The anomaly maps of an example share one scale; circles mark
    where a reconstruction fails.
    """
    rows, labels = [], []
    for name, example in examples.items():
        found = example["scaled"] + example["noised"]
        brightest = max(float(level["anomaly_map"].max()) for level in found)
        blank = Cell(torch.ones_like(example["image"]))
        rows += [[Cell(example["image"], example["mask"])] + [Cell(level["disturbed"][0]) for level in found],
                 [blank] + [Cell(level["reconstruction"][0], circle=level["circle"]) for level in found],
                 [blank] + [Cell(level["anomaly_map"], vmax=brightest) for level in found]]
        labels += [f"{name}\ndisturbed", "reconstruction", "anomaly map"]
    titles = [f"{side}\n$T={level}$" for side in ("scaled", "noised") for level in levels]
    return picture_table(rows, labels, ["input", *titles])
