"""What a method says of a run's test images, and the metrics of it; kept in the cache."""
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d3ad import metrics
from d3ad.data import synthetic
from d3ad.detector import Prediction
from d3ad.infra.files import load_tensors, save_tensors

AREAS = {"pro": (0.0, 1.0), "pro_small": (0.0, synthetic.SMALL), "pro_medium": (synthetic.SMALL, synthetic.MEDIUM),
         "pro_large": (synthetic.MEDIUM, 1.0)}  # shares of the image


@dataclass
class Outcome:
    """A prediction, its maps under the ranges of training images, and its metrics (fractions) under the profile's
    normalisation.
    """

    prediction: Prediction
    metrics: dict[str, float | None]

    def save(self, file: Path) -> None:
        """Maps as float16 and images as bytes, which is all that figures need; the metrics came from float32."""
        tensors = {f.name: getattr(self.prediction, f.name) for f in dataclasses.fields(Prediction)
                   if f.name != "threshold"}
        tensors["reconstruction"] = as_bytes(tensors["reconstruction"])
        for name in ("anomaly_map", "latent_map", "feature_map"):
            tensors[name] = tensors[name].clamp(max=torch.finfo(torch.float16).max).half()
        save_tensors(file, tensors, dict(metrics=self.metrics, threshold=self.prediction.threshold))

    @classmethod
    def load(cls, file: Path) -> "Outcome":
        """What `save` wrote.  Raises ValueError naming the file where it is damaged."""
        tensors, about = load_tensors(file)
        tensors["reconstruction"] = from_bytes(tensors["reconstruction"])
        tensors = {k: v.float() if v.dtype == torch.float16 else v for k, v in tensors.items()}
        return cls(Prediction(threshold=about["threshold"], **tensors), about["metrics"])


def as_bytes(images: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes, of any shape."""
    return ((images + 1) * 127.5).round().byte()


def from_bytes(images: Tensor) -> Tensor:
    """The images of `as_bytes`, in [-1, 1]."""
    return images.float() / 127.5 - 1


def evaluate(prediction, labels: Tensor, masks: Tensor | None) -> dict[str, float | None]:
    """I-AUROC, P-AUROC and PRO of a prediction, as fractions.

    prediction: its `score` (N,) and `anomaly_map` (N, H, W) count.  labels: (N,) 1 = anomalous.  masks: (N, H, W) bool.
    Also PRO of each size of region (None where there is none), and PRO as commonly computed with 200 thresholds.
    Without masks (None) all but I-AUROC are None.
    """
    if masks is None:
        return dict(i_auroc=metrics.image_auroc(prediction.score, labels)) | dict.fromkeys(("p_auroc", *AREAS,
                                                                                            "pro_200"))
    return (dict(i_auroc=metrics.image_auroc(prediction.score, labels),
                 p_auroc=metrics.pixel_auroc(prediction.anomaly_map, masks))
            | metrics.pro_by_area(prediction.anomaly_map, masks,
                                  AREAS) | {"pro_200": metrics.pro_200(prediction.anomaly_map, masks)})
