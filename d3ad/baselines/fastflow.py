"""FastFlow (Yu et al. 2021, arXiv 2111.07677): normalising flows on feature maps; anomalib's blocks of flow.

Kept: what they have for a ResNet-18: a flow of eight steps of 3 x 3 convolutions for each of three blocks, trained by
likelihood, with their batch, rate and decay; map, minus the likelihood, averaged over the blocks.
Simplified: the authors published no code, and the paper leaves out much.  So the features are normalised (LayerNorm
with weights of its own), the hidden layers are as wide as the input and a place's likelihood is a mean over channels,
as in github.com/gathierry/FastFlow, which anomalib follows.  The map is smoothed as all maps here are, theirs isn't
there.  The backbone is the one that all methods here share (theirs, at its best: CaiT).
Images asked: 500 epochs in batches of 32, Adam 1e-3, decay 1e-5 (Section 4.2; gathierry's constants.py).
Reported there (ResNet-18): I-AUROC 97.9, P-AUROC 97.2 on MVTec AD.  gathierry measured a P-AUROC of 95.6 after the last
epoch, 97.2 at the epoch that is best on test images, and says that its maps get worse after some epochs (issue 4 of
that repository).  anomalib, which stops early by test images, has I-AUROC 52.1 on screw and 91.6 on pill (its README).
"""
import torch.nn as nn
from torch import Tensor

from d3ad import maps
from d3ad.baselines.base import Baseline
from d3ad.baselines.learning import Recipe

FLOW_STEPS = 8


class FastFlow(Baseline):
    name = "FastFlow"
    recipe = Recipe("Section 4.2: 500 epochs, batches of 32, Adam 1e-3, decay 1e-5", batch_size=32, learning_rate=1e-3,
                    epochs=500, weight_decay=1e-5)

    def _fit(self, train: Tensor) -> None:
        from anomalib.models.image.fastflow.anomaly_map import AnomalyMapGenerator
        from anomalib.models.image.fastflow.loss import FastflowLoss
        from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
        blocks = self.features(train)
        shapes = [list(f.shape[1:]) for f in blocks.values()]
        self.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes).to(self.device)
        self.flows = nn.ModuleList(create_fast_flow_block(shape, conv3x3_only=True, hidden_ratio=1.0,
                                                          flow_steps=FLOW_STEPS) for shape in shapes).to(self.device)
        self.map = AnomalyMapGenerator((self.config.image_size,) * 2)
        loss = FastflowLoss()

        def loss_of_step(step: int) -> Tensor:
            index = self.index(len(train), step)
            return loss(*self._flow([f[index].to(self.device) for f in blocks.values()]))

        self.optimise(nn.ModuleList([self.norms, self.flows]), loss_of_step, len(train))

    def _flow(self, blocks: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The hidden variables of each block, and the logarithm of each flow's Jacobian determinant."""
        hidden, jacobians = zip(*(flow(norm(f)) for flow, norm, f in zip(self.flows, self.norms, blocks)))
        return list(hidden), list(jacobians)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor, None]:
        blocks = [f.contiguous() for f in self.backbone(images).values()]
        anomaly_map = maps.smooth(self.map(self._flow(blocks)[0]).squeeze(1), self.sigma)
        return maps.image_score(anomaly_map), anomaly_map, None
