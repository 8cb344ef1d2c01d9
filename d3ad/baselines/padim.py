"""PaDiM (Defard et al. 2021, arXiv 2011.08785): a Gaussian of features at each place; anomalib's torch model.

Kept: blocks 1 to 3, 100 of their channels picked at random, one mean and covariance per place, Mahalanobis distance.
Simplified: nothing; the backbone is the one that all methods here share.
Reported there (ResNet-18): P-AUROC 96.7, PRO 90.1 on MVTec AD.
"""
import torch
from anomalib.models.image.padim.anomaly_map import AnomalyMapGenerator
from anomalib.models.image.padim.torch_model import PadimModel
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import RESNET, Baseline, Blocks

CHANNELS = 100


class Padim(Baseline):
    name = "PaDiM"

    def _fit(self, train: Tensor) -> None:
        self.model = PadimModel(RESNET, pre_trained=False, n_features=CHANNELS)  # its extractor is replaced by ours
        self.model.idx = torch.randperm(sum(self.backbone.widths.values()))[:CHANNELS]
        self.model.feature_extractor = Blocks(self.backbone)
        self.model.anomaly_map_generator = AnomalyMapGenerator(sigma=self.sigma)
        self.model.to(self.device).train()
        for batch in train.split(self.config.predict_batch):
            self.model(batch.to(self.device))
        self.model.fit()
        self.model.eval()

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        anomaly_map = self.model(images).anomaly_map.squeeze(1)
        return maps.image_score(anomaly_map), anomaly_map, None
