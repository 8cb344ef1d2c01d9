"""The focal loss that DRAEM and DiffusionAD train their segmentation with."""
import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, where: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of (1 - p)^gamma (-log p), p the probability of each pixel's own class; a scalar (Lin et al. 2017).

    logits: (B, 2, H, W), the normal class first.  where: (B, H, W), 1 on anomalous pixels.
    Both classes weigh the same, as in DRAEM's own code.  With kornia's `alpha=1` the normal class would weigh 0, and
    "anomalous everywhere" would cost nothing.
    """
    log_p = -F.cross_entropy(logits, where.long(), reduction="none")
    return (-(1 - log_p.exp()) ** gamma * log_p).mean()
