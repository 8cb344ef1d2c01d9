"""FastFlow (Yu et al. 2021, arXiv 2111.07677): normalising flows on feature maps; anomalib's torch model.

Kept: a flow of eight steps per block on normalised features, trained by likelihood; map, minus the likelihood.
Simplified: AdamW with a falling rate for the profile's budget instead of 500 epochs.
Reported there (ResNet-18): I-AUROC 97.9, P-AUROC 97.2 on MVTec AD.
"""
from anomalib.models.image.fastflow.loss import FastflowLoss
from anomalib.models.image.fastflow.torch_model import FastflowModel
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, Blocks


class FastFlow(Baseline):
    name = "FastFlow"
    needs_resnet = True
    epochs, batch_size = 500, 32

    def _fit(self, train: Tensor) -> None:
        size = (self.config.image_size,) * 2
        self.model = FastflowModel(size, "resnet18", pre_trained=False)  # as many channels as ResNet-34
        self.model.feature_extractor = Blocks(self.backbone, as_list=True)
        self.model.to(self.device)
        loss = FastflowLoss()
        self.optimise(self.model, lambda step: loss(*self.model(self.batch(train, step))), len(train),
                      learning_rate=1e-3, weight_decay=1e-5)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        anomaly_map = maps.smooth(self.model(images).anomaly_map.squeeze(1), self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, None
