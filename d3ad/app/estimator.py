"""D3AD in scikit-learn's spelling, as its outlier detectors have it.

>>> detector = D3ADEstimator().fit(good)                # arrays (N, 3, H, W) in [-1, 1], or (N, 3 * H * W)
>>> detector.predict(new)                               # 1 good, -1 anomalous
"""
import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from d3ad.app.part import split_off
from d3ad.config import Config
from d3ad.detector import D3AD


class D3ADEstimator(OutlierMixin, BaseEstimator):
    """An outlier detector: higher `score_samples` is more normal; `predict` gives 1 for inliers and -1 for outliers.

    profile: settings to start from.  settings: a dict of those to change, as in `Config.replace`.
    held_out: the share of the training images that sets the threshold instead; 0: a quantile of trained ones sets it.
    false_alarm_rate: of good images that may be called outliers.
    X is an array or Tensor (N, 3, H, W) in [-1, 1], or such images flattened to (N, 3 * S * S), S the settings' image
    size, as the steps of a Pipeline pass them on.
    """

    def __init__(self, profile: str = "parts", settings: dict | None = None, held_out: float = 0.2,
                 false_alarm_rate: float = 0.01):
        self.profile, self.settings = profile, settings
        self.held_out, self.false_alarm_rate = held_out, false_alarm_rate

    def fit(self, X, y=None) -> "D3ADEstimator":
        """Train on good images; y is ignored.  Raises ValueError for another shape or values outside [-1, 1]."""
        config = Config.profile(self.profile, **(self.settings or {}))
        images = _as_images(X, config.image_size)
        self.n_features_in_ = int(np.prod(np.shape(X)[1:]))
        train, rest = split_off(images, self.held_out, config.seed) if self.held_out else (images, None)
        self.detector_ = D3AD(config).fit(train)
        if rest is not None:
            self.detector_.set_threshold(rest, self.false_alarm_rate)
        self.offset_ = -float(self.detector_.calibration.threshold)
        return self

    def score_samples(self, X) -> np.ndarray:
        """(N,) minus the anomaly score: higher is more normal."""
        check_is_fitted(self)
        return -self.detector_.predict(_as_images(X, self.detector_.config.image_size)).score.numpy()

    def decision_function(self, X) -> np.ndarray:
        """(N,) `score_samples` minus `offset_`: below 0 is an outlier."""
        return self.score_samples(X) - self.offset_

    def predict(self, X) -> np.ndarray:
        """(N,) 1 for inliers, -1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def _as_images(X, size: int) -> torch.Tensor:
    X = np.asarray(X)
    # bytes are told from [-1, 1] by their type
    images = torch.as_tensor(X if X.dtype == np.uint8 else X.astype(np.float32))
    return images.reshape(-1, 3, size, size) if images.ndim == 2 and images.shape[1] == 3 * size * size else images
