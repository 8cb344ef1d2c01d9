"""What an inspector gets of a prediction: scores.csv, a heat map, an overlay and a mask per image, and one HTML file
for all.

The HTML file needs no network and no other file.
"""
import base64
import io
import json
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from d3ad.detector import Prediction
from d3ad.infra.files import whole_file, write_whole

TEMPLATE = Path(__file__).with_name("report.html")
RED = np.array([255, 45, 45])


def write_results(out: Path, names: list[str], images: Tensor, prediction: Prediction, guarantee: str,
                  raw: bool = False) -> None:
    """Write scores.csv, report.html and the folders heat_maps, overlays and masks (PNG), with `raw` also maps (NPY,
    float32).

    names: what to call each image, such as its path below the folder.  images: (N, 3, H, W) in [-1, 1].
    guarantee: one sentence on where the threshold comes from.
    """
    table = pd.DataFrame(dict(path=names, score=prediction.score.numpy(), t_hat=prediction.t_hat.numpy(),
                              is_anomalous=prediction.is_anomalous.numpy(), threshold=prediction.threshold))
    high = _map_high(prediction)
    for i, name in enumerate(names):
        file = f"{i:04d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', Path(name).stem)[:60]}"
        above = (prediction.anomaly_map[i] > prediction.threshold).numpy()
        pictures = dict(heat_maps=heat_map(prediction.anomaly_map[i], high), overlays=overlay(images[i], above),
                        masks=Image.fromarray(above.astype(np.uint8) * 255))
        for folder, picture in pictures.items():
            with whole_file(out / folder / f"{file}.png") as part:
                picture.save(part, "png")
        if raw:
            with whole_file(out / "maps" / f"{file}.npy") as part, part.open("wb") as stream:
                np.save(stream, prediction.anomaly_map[i].numpy())
    write_page(out / "report.html", names, images, prediction, guarantee)
    write_whole(out / "scores.csv", table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))


def heat_map(anomaly_map: Tensor, high: float) -> Image.Image:
    """A map (H, W) in matplotlib's "magma", black at 0 and brightest at `high`."""
    colours = matplotlib.colormaps["magma"]((anomaly_map / high).clamp(0, 1).numpy(), bytes=True)
    return Image.fromarray(np.ascontiguousarray(colours[..., :3]))


def overlay(image: Tensor, above: np.ndarray) -> Image.Image:
    """The image (3, H, W), tinted red where `above` (H, W) is True."""
    pixels = _pixels(image).astype(np.float32)
    pixels[above] = 0.35 * pixels[above] + 0.65 * RED
    return Image.fromarray(pixels.round().astype(np.uint8))


def write_page(file: Path, names: list[str], images: Tensor, prediction: Prediction, guarantee: str,
               most: int = 500) -> None:
    """Write the HTML report: sortable table, histogram of scores, each image with its maps, a slider for the threshold.

    most: so many of the highest scores are shown with pictures, the others in the table only.
    Raises ValueError where the numbers of names, images and predictions differ.
    """
    if not len(names) == len(images) == len(prediction):
        raise ValueError(f"{len(names)} names, {len(images)} images and {len(prediction)} predictions don't belong "
                         "together")
    shown, high = set(prediction.score.argsort(descending=True)[:most].tolist()), _map_high(prediction)
    items = []
    for i, name in enumerate(names):
        item = dict(path=name, score=float(prediction.score[i]), t_hat=int(prediction.t_hat[i]))
        if i in shown:
            grey = (prediction.anomaly_map[i] / high).clamp(0, 1).mul(255).round().byte().numpy()
            item |= dict(image=_data_url(Image.fromarray(_pixels(images[i])), "jpeg"),
                         reconstruction=_data_url(Image.fromarray(_pixels(prediction.reconstruction[i])), "jpeg"),
                         map=_data_url(Image.fromarray(grey), "png"))
        items.append(item)
    scores = [*prediction.score.tolist(), prediction.threshold]
    margin = 0.05 * (max(scores) - min(scores)) or 1.0
    flagged = int(prediction.is_anomalous.sum())
    left_out = f" Pictures of the {most} highest scores." if len(names) > most else ""
    data = dict(items=items, threshold=prediction.threshold, map_high=high, low=min(scores) - margin,
                high=max(scores) + margin,
                guarantee=guarantee,
                summary=f"{flagged} of {len(names)} images are anomalous at the calibrated threshold.{left_out}")
    text = json.dumps(data).replace("<", "\\u003c")  # no file's name can end the script that holds it
    write_whole(file, TEMPLATE.read_text(encoding="utf-8").replace("$data", text))


def _map_high(prediction: Prediction) -> float:
    """The map value that is brightest in all pictures, so that they can be compared: above the threshold in any case.
    """
    return max(float(prediction.anomaly_map.max()), 1.5 * prediction.threshold, 1e-9)


def _pixels(image: Tensor) -> np.ndarray:
    """(3, H, W) in [-1, 1] as bytes (H, W, 3)."""
    return np.ascontiguousarray(((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def _data_url(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
