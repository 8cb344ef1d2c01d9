"""RD4AD, reverse distillation (Deng and Li 2022, arXiv 2201.10703): a decoder that imitates a frozen encoder;
anomalib's torch model.

Kept: bottleneck and mirrored decoder, the cosine loss of flattened blocks, the sum of the blocks' cosine distances as
map.
Simplified: AdamW with a falling rate, for the profile's budget instead of 200 epochs.
Reported there (WideResNet-50): I-AUROC 98.5, P-AUROC 97.8, PRO 93.9 on MVTec AD.  The paper at hand prints a PRO of
70.9 for it on VisA, where others measured far more.
"""
from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode, AnomalyMapGenerator
from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline, Blocks


class RD4AD(Baseline):
    name = "RD4AD"
    needs_resnet = True
    epochs, batch_size = 200, 16

    def _build(self) -> None:
        size = (self.config.image_size,) * 2
        mode = AnomalyMapGenerationMode.ADD
        self.model = ReverseDistillationModel(self.backbone.name.split(".")[0], size, ["layer1", "layer2", "layer3"],
                                              mode, pre_trained=False)
        self.model.encoder = Blocks(self.backbone)
        self.model.anomaly_map_generator = AnomalyMapGenerator(size, sigma=self.sigma, mode=mode)
        self.model.to(self.device)

    def _fit(self, train: Tensor) -> None:
        self._build()
        loss = ReverseDistillationLoss()
        self.optimise(self.model, lambda step: loss(*self.model(self.batch(train, step))), len(train),
                      learning_rate=5e-3)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        anomaly_map = self.model(images).anomaly_map.squeeze(1)
        return maps.image_score(anomaly_map), anomaly_map, None
