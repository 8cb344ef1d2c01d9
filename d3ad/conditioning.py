"""Dynamic implicit conditioning (Section 4.1, Algorithm 2): how far to perturb each image.

The mean L1 distance of an image's features to its K nearest training images is a first guess of how anomalous it is;
the guess is put into one of |B| equal bins, and the bin sets the step T-hat.
"""
import numpy as np
import torch
from torch import Tensor

from d3ad.config import Config

try:
    import faiss
except ImportError:  # then torch.cdist does the same search, slower
    faiss = None

PORTION = 2 ** 28  # bytes of the training features that are compared at a time


def pool_features(feature: Tensor) -> Tensor:
    """phi_j(x) for the nearest-neighbour search: (B, C, H, W) averaged to 16 x 16 and flattened, (B, 256 C).

    The average is the authors' code's, not the paper's; a smaller map is only flattened.
    """
    if feature.shape[-1] > 16:
        feature = torch.nn.functional.adaptive_avg_pool2d(feature, 16)
    return feature.flatten(1)


def one_brightness(images: Tensor) -> Tensor:
    """Images (B, 3, H, W), each shifted and scaled to mean 0 and standard deviation 0.35, then cut to [-1, 1].

    What Algorithm 2 sees with `dic_normalise`: otherwise a good image under another light is as far from its neighbours
    as a defective one.  Not in the paper.
    """
    std, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
    return (0.35 * (images - mean) / std.clamp_min(1e-3)).clamp(-1, 1)


def knn_distances(queries: Tensor, reference, k: int) -> Tensor:
    """L1 distances (B, min(k, N)) of each query (B, D) to its k nearest among `reference` (N, D), rising; exact.

    reference: a Tensor, or whatever gives rows by slices, such as a memory-mapped array; it is compared in portions
    of `PORTION` bytes, so that memory holds one portion and a batch's distances at a time.
    """
    queries = queries.float().cpu()
    rows = max(PORTION // (4 * max(queries.shape[1], 1)), 1)
    parts = []
    for start in range(0, len(reference), rows):
        portion = torch.as_tensor(reference[start:start + rows]).float().cpu()
        parts = [*parts, _nearest(queries, portion, min(k, len(portion)))]
        if len(parts) > 1:
            joined = torch.cat(parts, 1)
            parts = [joined.topk(min(k, joined.shape[1]), largest=False, sorted=True).values]
    return parts[0]


def _nearest(queries: Tensor, reference: Tensor, k: int) -> Tensor:
    """`knn_distances` of one portion."""
    if faiss is not None:
        q, r = (np.ascontiguousarray(x.numpy()) for x in (queries, reference))
        distances, _ = faiss.knn(q, r, k, metric=faiss.METRIC_L1)
        return torch.from_numpy(distances)
    return torch.cdist(queries, reference, p=1).topk(k, largest=False, sorted=True).values


def bin_edges(distances: Tensor, num_bins: int) -> Tensor:
    """|B| + 1 equidistant edges from the smallest to the largest training distance, float64."""
    return torch.linspace(float(distances.min()), float(distances.max()), num_bins + 1, dtype=torch.float64)


def assign_bins(distances: Tensor, edges: Tensor) -> Tensor:
    """psi in Algorithm 2: bins 1..|B|, long (B,); 0 lies at or below the first edge, beyond the last edge is |B|.

    A distance on an edge belongs to the bin below it, as in the authors' digitize(..., right=True).
    """
    return torch.searchsorted(edges, distances.to(edges), right=False).clamp_max(len(edges) - 1)


def step_of_bin(bins: Tensor, num_bins: int, t_max: int, min_bin: int, round_to: int) -> Tensor:
    """T-hat = b / |B| T_max of Algorithm 2's line 8, b at least `min_bin`, to the nearest `round_to`, half up."""
    scaled = bins.clamp_min(min_bin) * t_max  # times |B|, so that all stays in whole numbers
    return (2 * scaled + num_bins * round_to) // (2 * num_bins * round_to) * round_to


class DynamicConditioning:
    """g(x, X_train, T_max) of Algorithm 2 on feature vectors; the defaults are the paper's.

    k: neighbours.  num_bins: |B|.  t_max: T_max.  min_bin: lowest bin in use.  round_to: T-hat is a multiple of it.
    include_self: a training image finds itself among its k neighbours at distance 0, as in the authors' code; False
    leaves it out, so that training and test distances are of one kind.
    Raises ValueError for a value below 1, or min_bin outside 0..num_bins.
    """

    def __init__(self, k: int = 20, num_bins: int = 10, t_max: int = 80, min_bin: int = 2, round_to: int = 10,
                 include_self: bool = True):
        for name, value in dict(k=k, num_bins=num_bins, t_max=t_max, round_to=round_to).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 <= min_bin <= num_bins:
            raise ValueError(f"min_bin must lie in 0..num_bins = {num_bins}; got {min_bin}")
        self.k, self.num_bins, self.t_max = k, num_bins, t_max
        self.min_bin, self.round_to, self.include_self = min_bin, round_to, include_self

    @classmethod
    def of(cls, config: Config) -> "DynamicConditioning":
        """With a detector's settings."""
        return cls(config.k, config.num_bins, config.t_max, config.min_bin, config.round_to, config.include_self)

    def settings(self) -> dict:
        """What it was made with."""
        return {name: getattr(self, name) for name in ("k", "num_bins", "t_max", "min_bin", "round_to", "include_self")}

    def fit(self, features: Tensor) -> "DynamicConditioning":
        """Keep the training features (N, D) and place the bins over their mean KNN distances.

        Raises ValueError where there are fewer than k + 1 training images (k with `include_self`) or a value isn't
        finite.
        """
        features = torch.as_tensor(features).detach().float().cpu()
        needed = self.k if self.include_self else self.k + 1
        if features.ndim != 2 or len(features) < needed:
            raise ValueError(f"k = {self.k} neighbours need features (N, D) with N >= {needed}; got "
                             f"{tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError("training features must be finite")
        self.reference = features
        if self.include_self:
            self.train_distances = self.distances(features)
        else:  # the nearest is the image itself
            self.train_distances = knn_distances(features, features, self.k + 1)[:, 1:].mean(1)
        self.edges = bin_edges(self.train_distances, self.num_bins)
        return self

    def distances(self, features: Tensor) -> Tensor:
        """y-bar of Algorithm 2's line 6: mean L1 distance (B,) to the k nearest training images, float32."""
        return knn_distances(features, self.reference, self.k).mean(1)

    def bins(self, features: Tensor) -> Tensor:
        """Bin 0..|B| of each image, long (B,), before the minimum bin is applied."""
        return assign_bins(self.distances(features), self.edges)

    def t_hat(self, features: Tensor) -> Tensor:
        """The dynamic step T-hat of each image, long (B,), a multiple of `round_to`."""
        return self.steps(self.bins(features))

    def steps(self, bins: Tensor) -> Tensor:
        """T-hat of given bins."""
        return step_of_bin(bins, self.num_bins, self.t_max, self.min_bin, self.round_to)

    def levels(self) -> list[int]:
        """Every value that T-hat can take, rising."""
        return sorted(set(self.steps(torch.arange(self.num_bins + 1)).tolist()))
