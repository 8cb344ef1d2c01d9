"""Which pictures the qualitative figures show, chosen by a rule, and how well a segmentation covers its defects."""
import pandas as pd
from torch import Tensor

BESIDE = ("DRAEM", "DDAD-like")  # the paper's Figure 9 sets masks of DRAEM and DDAD beside D3AD's


def by_area(masks: Tensor) -> list[int]:
    """Indices of the images that have a defect, smallest defect first.

    masks: (N, H, W) bool; images without any pixel of a defect are left out.
    """
    areas = masks.flatten(1).sum(1)
    return [int(i) for i in areas.argsort(stable=True) if areas[i] > 0]


def at_share(masks: Tensor, share: float) -> int:
    """The image at a share of the way, 0 to 1, from the smallest defect to the largest.

    masks: (N, H, W) bool.  Raises ValueError for a share outside [0, 1], or where no image has a defect.
    """
    order = by_area(masks)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1]; got {share}")
    if not order:
        raise ValueError("no mask marks a defect")
    return order[round(share * (len(order) - 1))]


def of_datasets(runs: list, *names: str) -> list:
    """The runs of these datasets ("visa", "btad"); all runs where the profile has none of them."""
    return [run for run in runs if run.name in names] or runs


def overlap(above: Tensor, masks: Tensor) -> dict[str, float]:
    """Over all images together, in percent: `covered` and `precision`.

    above: (N, H, W) bool, the pixels above a method's threshold.  masks: (N, H, W) bool, those of a defect.
    covered: the share of a defect's pixels that are above.  precision: the share of the pixels above that are a
    defect's; 0 where nothing is above.  Raises ValueError where no pixel is a defect's.
    """
    hits, defect = int((above & masks).sum()), int(masks.sum())
    if not defect:
        raise ValueError("no mask marks a defect")
    return dict(covered=100 * hits / defect, precision=100 * hits / max(int(above.sum()), 1))


def failure(change: Tensor, mask: Tensor, limit: float) -> tuple[int, int] | None:
    """Where a reconstruction fails: the place (row, column) outside the defect that it changes most, if by more than
    `limit`; None otherwise.

    change: (H, W), how far the reconstruction is from the image.  mask: (H, W) bool, the defect.
    """
    outside = change.masked_fill(mask, 0.0)
    if float(outside.max()) <= limit:
        return None
    row, column = divmod(int(outside.argmax()), outside.shape[1])
    return row, column


def by_severity(masks: Tensor, t_hat: Tensor) -> dict[str, int]:
    """Images of several kinds, as far as they differ: the "smallest", "middle" and "largest" defect, and of the
    defective images with the lowest T-hat the one with the largest defect, "lowest T-hat".

    masks: (N, H, W) bool.  t_hat: (N,).  Raises ValueError where no image has a defect.
    """
    order = by_area(masks)
    if not order:
        raise ValueError("no mask marks a defect")
    lowest = min(int(t_hat[i]) for i in order)
    kinds = {"largest": order[-1], "middle": order[len(order) // 2], "smallest": order[0],
             "lowest T-hat": [i for i in order if int(t_hat[i]) == lowest][-1]}
    return {kind: i for n, (kind, i) in enumerate(kinds.items()) if i not in list(kinds.values())[:n]}


def hardest(scores: Tensor, labels: Tensor, masks: Tensor) -> tuple[int, int]:
    """Two images: the defect with the lowest score, and the good part with the highest.

    scores: (N,).  labels: (N,) 1 = anomalous.  masks: (N, H, W) bool.  Raises ValueError where either kind is missing.
    """
    defects, good = by_area(masks), (labels == 0).nonzero().flatten().tolist()
    if not defects or not good:
        raise ValueError("it takes a defect and a good part")
    return min(defects, key=lambda i: float(scores[i])), max(good, key=lambda i: float(scores[i]))


def beside(pro: pd.Series, wanted: tuple[str, ...] = BESIDE) -> list[str]:
    """The baselines to draw beside D3AD: those wanted that were measured, then the measured ones with the best PRO.

    pro: PRO of each measured baseline by its name.  As many as are wanted, or all where fewer were measured; where none
    was, the wanted ones, whose panels say so.
    """
    chosen = [name for name in wanted if name in pro.index]
    others = pro.drop(chosen).sort_values(ascending=False, kind="stable").index
    return [*chosen, *others][:len(wanted)] or list(wanted)
