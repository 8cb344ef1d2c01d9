"""D3AD among anomalib's models: in its Engine, on its datamodules, judged by its metrics; and predictions as its
batches.

>>> from anomalib.data import Folder
>>> from anomalib.engine import Engine
>>> from d3ad.app.anomalib_bridge import D3ADModule
>>> module = D3ADModule()
>>> Engine().fit(module, datamodule=Folder(name="parts", root=..., normal_dir="good", abnormal_dir="defect"))

anomalib's images lie in [0, 1], D3AD's in [-1, 1]; nothing is normalised by ImageNet's statistics on the way.
"""
import torch
import torch.nn as nn
from torch import Tensor

from d3ad.infra.torchvision_shim import make_torchvision_importable

make_torchvision_importable()  # anomalib imports torchvision
from anomalib import LearningType  # noqa: E402
from anomalib.data import ImageBatch, InferenceBatch  # noqa: E402
from anomalib.models.components import AnomalibModule, MemoryBankMixin  # noqa: E402
from anomalib.pre_processing import PreProcessor  # noqa: E402
from torchvision.transforms.v2 import Resize  # noqa: E402

from d3ad.config import Config  # noqa: E402
from d3ad.data.given import in_range  # noqa: E402
from d3ad.detector import D3AD, Prediction  # noqa: E402


def images_of(batch: ImageBatch) -> Tensor:
    """The images of anomalib's batch as D3AD takes them, (N, 3, H, W) in [-1, 1].

    Raises ValueError where they don't lie in [0, 1], such as after a Normalize with ImageNet's statistics.
    """
    return in_range(batch.image, (0, 1))


def to_image_batch(prediction: Prediction, images: Tensor, labels: Tensor | None = None,
                   masks: Tensor | None = None) -> ImageBatch:
    """A prediction as anomalib's Evaluator and Visualizer take it.

    images: (N, 3, H, W) in [-1, 1], those of the prediction.  labels: (N,), 1 = anomalous.  masks: (N, H, W).
    Raises ValueError where the numbers of images and predictions differ, or for a prediction under normalisation
    "test", which has no threshold.
    """
    if len(images) != len(prediction):
        raise ValueError(f"{len(images)} images and {len(prediction)} predictions don't belong together")
    truth = dict(gt_label=None if labels is None else labels.bool(), gt_mask=None if masks is None else masks.bool())
    return ImageBatch(image=(images + 1) / 2, **truth, **_predicted(prediction)._asdict())


def _predicted(prediction: Prediction) -> InferenceBatch:
    """Scores and maps, and what lies above D3AD's own threshold."""
    return InferenceBatch(pred_score=prediction.score, anomaly_map=prediction.anomaly_map,
                          pred_label=prediction.is_anomalous, pred_mask=prediction.anomaly_map > prediction.threshold)


class _Scorer(nn.Module):
    """What anomalib calls for predictions: images (N, 3, H, W) in [0, 1] to an InferenceBatch."""

    detector: D3AD | None = None

    def forward(self, images: Tensor) -> InferenceBatch:
        if self.detector is None:
            raise RuntimeError("no detector is fitted: anomalib's checkpoints don't hold one; keep it with "
                               "module.detector.save(folder) and give D3ADModule(detector=D3AD.load(folder))")
        prediction = self.detector.predict(images.float(), value_range=(0, 1))
        return InferenceBatch(*(value.to(images.device) for value in _predicted(prediction)))


class D3ADModule(MemoryBankMixin, AnomalibModule):
    """D3AD as one of anomalib's models: it gathers an epoch of training images, then fits.

    profile, settings: as in `Config.profile`.  detector: a fitted one, to test or predict with at once.
    The others are anomalib's: `pre_processor`, `post_processor`, `evaluator`, `visualizer`.
    """

    def __init__(self, profile: str = "parts", settings: dict | None = None, detector: D3AD | None = None,
                 **components):
        self.config = detector.config if detector else Config.profile(profile, **(settings or {}))
        size = self.config.image_size
        components.setdefault("pre_processor", PreProcessor(transform=Resize((size, size), antialias=True)))
        super().__init__(**components)
        self.model, self.gathered = _Scorer(), []
        if detector:
            self.detector = detector

    @property
    def detector(self) -> D3AD | None:
        """The fitted detector; None before `fit`."""
        return self.model.detector

    @detector.setter
    def detector(self, detector: D3AD) -> None:
        self.model.detector, self._is_fitted = detector, torch.tensor([True], device=self._is_fitted.device)

    @staticmethod
    def configure_optimizers() -> None:
        """None: D3AD has its own, one for each of its parts."""

    def training_step(self, batch: ImageBatch, *args, **kwargs) -> Tensor:
        """Keep the images; the loss is a dummy."""
        self.gathered.append(images_of(batch).cpu())
        return torch.tensor(0.0, requires_grad=True, device=self.device)

    def fit(self) -> None:
        """Train D3AD on what was gathered; called by anomalib at the end of the epoch."""
        with torch.inference_mode(False), torch.enable_grad():
            self.detector = D3AD(self.config).fit(torch.cat(self.gathered), value_range=(-1, 1))
        self.gathered.clear()

    def validation_step(self, batch: ImageBatch, *args, **kwargs) -> ImageBatch:
        """The batch with scores and maps."""
        return batch.update(**self.model(batch.image)._asdict())

    @property
    def trainer_arguments(self) -> dict:
        """One pass over the images, on one device."""
        return dict(max_epochs=1, num_sanity_val_steps=0, devices=1)

    @property
    def learning_type(self) -> LearningType:
        """Good images only."""
        return LearningType.ONE_CLASS
