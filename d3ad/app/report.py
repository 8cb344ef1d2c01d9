"""What an inspector gets from a prediction: scores.csv, a heat map, an overlay and a mask per image, and one HTML file
for all.

Pictures have the photograph's own size where it is known.  The HTML file needs no network; beside the pictures that it
holds it shows those in the folders beside it.
"""
import base64
import heapq
import io
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from d3ad.detector import Prediction
from d3ad.infra.files import whole_file, write_whole

TEMPLATE = Path(__file__).with_name("report.html")
RED = np.array([255, 45, 45])
BRIGHTEST = 3        # times the threshold: brightest in all pictures of maps, whatever an outlier reaches
LARGE = 1_000_000    # pixels from which on overlays and heat maps are JPEGs
MOST = 500           # images with pictures in the page
FINEST = 128         # pixels of a map on the page along each side


def write_results(out: Path, names: list[str], images: Tensor, prediction: Prediction, guarantee: str,
                  raw: bool = False) -> None:
    """Write scores.csv, report.html and the folders heat_maps, overlays and masks (PNG), with `raw` also maps (NPY,
    float32).

    names: what to call each image, such as its path below the folder.  images: (N, 3, H, W) in [-1, 1].
    guarantee: one sentence on where the threshold comes from.
    """
    table = pd.DataFrame(dict(path=names, score=prediction.score.numpy(), t_hat=prediction.t_hat.numpy(),
                              is_anomalous=prediction.is_anomalous.numpy(), threshold=prediction.threshold))
    for i, name in enumerate(names):
        pixels = Image.fromarray(_pixels(images[i]))
        write_pictures(out, file_stem(i, name), pixels, prediction.anomaly_map[i], prediction.threshold, raw)
    write_page(out / "report.html", names, images, prediction, guarantee)
    write_whole(out / "scores.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def file_stem(i: int, name: str, width: int = 4) -> str:
    """What the pictures of image number i are called, without suffix."""
    return f"{i:0{width}d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(name).stem)[:60]}"


def suffix_of(num_pixels: int) -> str:
    """Of the heat map and the overlay of a photograph with so many pixels."""
    return ".jpg" if num_pixels > LARGE else ".png"


def write_pictures(out: Path, stem: str, photograph: Image.Image, anomaly_map: Tensor, threshold: float,
                   raw: bool = False,
                   above: np.ndarray | None = None, announce: Callable[[str], None] = lambda name: None) -> None:
    """Write the heat map, the overlay and the mask of one photograph in its own size, with `raw` also its map (NPY).

    anomaly_map: (H, W).  above: the mask (height, width), where it is known already.
    announce: is told each file's name below `out` before it is written.
    """
    above = above_threshold(anomaly_map, threshold, photograph.size) if above is None else above
    suffix = suffix_of(above.size)
    options = dict(quality=90) if suffix == ".jpg" else dict(compress_level=4)
    heat = heat_map(anomaly_map, brightest(threshold)).resize(photograph.size, Image.Resampling.BILINEAR)
    for folder, drawn, ending in (("heat_maps", heat, suffix), ("overlays", tinted(photograph, above), suffix),
                                  ("masks", Image.fromarray(above.astype(np.uint8) * 255), ".png")):
        announce(f"{folder}/{stem}{ending}")
        with whole_file(out / folder / f"{stem}{ending}") as part:
            drawn.save(part, **(options if ending == suffix else {}))
    if raw:
        announce(f"maps/{stem}.npy")
        with whole_file(out / "maps" / f"{stem}.npy") as part, part.open("wb") as stream:
            np.save(stream, anomaly_map.numpy())


def brightest(threshold: float) -> float:
    """The map value that is brightest in all pictures, so that they can be compared; it depends on the threshold
    alone."""
    return BRIGHTEST * threshold if threshold > 0 else 1.0


def above_threshold(anomaly_map: Tensor, threshold: float, size: tuple[int, int]) -> np.ndarray:
    """Where a map (H, W) exceeds the threshold, in a photograph of size (width, height): (height, width) bool.

    Each region of the map that exceeds it is marked, however the sizes differ.
    """
    width, height = size
    rows, columns = anomaly_map.shape
    if (height, width) == (rows, columns):
        return (anomaly_map > threshold).numpy()
    grid = anomaly_map[None, None].float()
    if height <= rows and width <= columns:
        resized = F.adaptive_max_pool2d(grid, (height, width))
    else:
        resized = F.interpolate(grid, (height, width), mode="bilinear", align_corners=False)
    above, exceeds = (resized[0, 0] > threshold).numpy(), (anomaly_map > threshold).numpy()
    if exceeds.any():  # between the samples of a resized map a small region may vanish
        regions, count = ndimage.label(exceeds, np.ones((3, 3), int))
        shown = F.adaptive_max_pool2d(torch.from_numpy(above)[None].float(), (rows, columns))[0].numpy() > 0
        for number in set(range(1, count + 1)) - set(regions[shown].tolist()):
            row, column = divmod(int(np.where(regions == number, anomaly_map.numpy(), -np.inf).argmax()), columns)
            above[row * height // rows:max((row + 1) * height // rows, row * height // rows + 1),
                  column * width // columns:max((column + 1) * width // columns, column * width // columns + 1)] = True
    return above


def boxes(above: np.ndarray, anomaly_map: Tensor) -> list[list[float]]:
    """Each 8-connected region of a mask (height, width): x, y, width, height and area in its pixels, and the map's
    highest value.

    The map (H, W) may be of another size.
    """
    regions, count = ndimage.label(above, np.ones((3, 3), int))
    values, found = F.adaptive_max_pool2d(anomaly_map[None].float(), above.shape)[0].numpy(), []
    for number, (down, across) in enumerate(ndimage.find_objects(regions, count), 1):
        region = regions[down, across] == number
        found.append([across.start, down.start, across.stop - across.start, down.stop - down.start, int(region.sum()),
                      round(float(values[down, across][region].max()), 6)])
    return found


def heat_map(anomaly_map: Tensor, high: float) -> Image.Image:
    """A map (H, W) in matplotlib's "magma", black at 0 and brightest at `high`."""
    colours = matplotlib.colormaps["magma"]((anomaly_map / high).clamp(0, 1).numpy(), bytes=True)
    return Image.fromarray(np.ascontiguousarray(colours[..., :3]))


def tinted(photograph: Image.Image, above: np.ndarray) -> Image.Image:
    """A photograph in RGB, tinted red where `above` (height, width) is True."""
    pixels = np.array(photograph)
    pixels[above] = (0.35 * pixels[above].astype(np.float32) + 0.65 * RED).round().astype(np.uint8)
    return Image.fromarray(pixels)


def write_page(file: Path, names: list[str], images: Tensor, prediction: Prediction, guarantee: str,
               most: int = MOST) -> None:
    """Write the HTML report: sortable table, histogram of scores, each image with its maps, a slider for the threshold.

    most: so many of the highest scores are shown with pictures, the others in the table only.
    Raises ValueError where the numbers of names, images and predictions differ.
    """
    if not len(names) == len(images) == len(prediction):
        raise ValueError(f"{len(names)} names, {len(images)} images and {len(prediction)} predictions don't belong "
                         "together")
    shown = set(heapq.nlargest(most, range(len(names)), key=lambda i: (float(prediction.score[i]), -i)))
    rows = [dict(path=name, score=float(prediction.score[i]), t_hat=int(prediction.t_hat[i]))
            for i, name in enumerate(names)]

    def items():
        for i, row in enumerate(rows):
            yield row | (item_of(Image.fromarray(_pixels(images[i])), prediction.anomaly_map[i],
                                 prediction.reconstruction[i], prediction.threshold) if i in shown else {})

    compose_page(file, items(), [row["score"] for row in rows], prediction.threshold, guarantee, min(most, len(names)))


def item_of(photograph: Image.Image, anomaly_map: Tensor, reconstruction: Tensor, threshold: float) -> dict:
    """What the page holds of one image: input and reconstruction (JPEG), the map to look at (PNG) and its values.

    The photograph is made as large as the map along its longer side.  Values are 16-bit steps over the map's own range,
    the highest of each cell; rounding moves none past the threshold.
    """
    side, (rows, columns) = max(anomaly_map.shape), anomaly_map.shape
    scale = side / max(photograph.size)
    size = tuple(max(1, round(length * scale)) for length in photograph.size)
    high, low = float(anomaly_map.max()), float(anomaly_map.min())
    grey = (anomaly_map / brightest(threshold)).clamp(0, 1).mul(255).round().numpy()
    if threshold > 0:
        level = round(255 / BRIGHTEST)
        grey = np.where((anomaly_map > threshold).numpy(), np.maximum(grey, level + 1), np.minimum(grey, level))
    grid = F.adaptive_max_pool2d(anomaly_map[None].double(), (min(rows, FINEST), min(columns, FINEST)))[0].numpy()
    steps = (grid - low) / ((high - low) or 1.0) * 65535
    steps = np.where(grid > threshold, np.ceil(steps), np.floor(steps)).clip(0, 65535).astype("<u2")
    return dict(image=_data_url(photograph.resize(size, Image.Resampling.BILINEAR), "jpeg"),
                reconstruction=_data_url(Image.fromarray(_pixels(reconstruction)).resize(size,
                                                                                    Image.Resampling.BILINEAR),
                                         "jpeg"),
                map=_data_url(Image.fromarray(grey.astype(np.uint8)), "png"),
                values=base64.b64encode(steps.tobytes()).decode(),
                values_shape=list(steps.shape), values_range=[low, high])


def compose_page(file: Path, items: Iterable[dict], scores: list[float], threshold: float, guarantee: str,
                 num_shown: int, left_out: list[dict] | tuple = (), num_flagged: int | None = None) -> None:
    """Write the page piece by piece: one item after the other, so that their pictures are never all in memory.

    items: rows of the table, in order, those that are shown with what `item_of` gives.  left_out: path and state of
    each file that was not judged.
    num_flagged: how many scores exceed the threshold, where `scores` are rounded.
    """
    values = [*scores, threshold]
    margin = 0.05 * (max(values) - min(values)) or 1.0
    flagged = sum(score > threshold for score in scores) if num_flagged is None else num_flagged
    more = f" Pictures of the {num_shown} highest scores." if len(scores) > num_shown else ""
    lost = f" {len(left_out)} files were not judged: see below." if left_out else ""
    data = dict(threshold=threshold, map_high=brightest(threshold), low=min(values) - margin, high=max(values) + margin,
                guarantee=guarantee, left_out=list(left_out),
                summary=f"{flagged} of {len(scores)} images are anomalous at the threshold that was set.{more}{lost}")
    before, after = TEMPLATE.read_text(encoding="utf-8").split("$data")
    with whole_file(file) as part, part.open("w", encoding="utf-8") as page:
        page.write(before + _as_json(data)[:-1] + ', "items": [')
        for i, item in enumerate(items):
            page.write(("," if i else "") + _as_json(item))
        page.write("]}" + after)


def _as_json(value) -> str:
    """JSON in which no file's name can end the script that holds it."""
    return json.dumps(value).replace("<", "\\u003c")


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] as bytes (H, W, 3)."""
    return np.ascontiguousarray(((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def _data_url(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    # the highest level, or `optimize`, takes 15 times as long for a map and saves 8 %
    picture.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {"compress_level": 4}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
