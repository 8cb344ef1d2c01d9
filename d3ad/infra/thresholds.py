"""Where to draw the line between good and anomalous, and what that line guarantees.

Where good images are like those whose scores set the threshold, and those were not trained on, the chance that a good
one exceeds the k-th largest of n scores is k / (n + 1) on average, and follows Beta(k, n + 1 - k) (order statistics of
a continuous distribution; the same reasoning as in split conformal prediction, Vovk et al. 2005).
"""
from dataclasses import dataclass
from math import ceil, floor

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it guarantees."""

    value: float               # a score above it counts as anomalous
    false_alarm_rate: float    # the rate that was asked for
    expected_rate: float       # of good images above it, on average over such thresholds
    interval: tuple[float, float]  # the true rate lies in it with 90 % probability
    num_images: int            # good images that it rests on

    @classmethod
    def stored(cls, values: dict) -> "Threshold":
        """From fields and values that come out of a file; ValueError or TypeError where one is none of its kind."""
        found = cls(**values | {"interval": tuple(values["interval"])})
        try:
            str(found)  # a text in place of a number would fail later
        except ArithmeticError:
            raise ValueError("threshold: false_alarm_rate is out of range") from None
        return found

    def __str__(self) -> str:
        low, high = (f"{100 * rate:.1f}" for rate in self.interval)
        text = (f"threshold {self.value:.4g} from {self.num_images} good images that were not trained on: expect "
                f"{100 * self.expected_rate:.1f} % false alarms (90 % interval {low} to {high} %)")
        if self.expected_rate > self.false_alarm_rate:
            needed = ceil(1 / self.false_alarm_rate - 1e-9) - 1
            text += f"; {100 * self.false_alarm_rate:g} % as asked would take {needed} such images"
        return text


def threshold_for(scores, false_alarm_rate: float = 0.01) -> Threshold:
    """The lowest threshold that keeps the expected rate of false alarms at or below `false_alarm_rate`.

    scores: (N,) of good images that were not trained on.  Where N is too small for the rate, the largest score is
    taken, and `expected_rate`, 1 / (N + 1), says what that gives.
    Raises ValueError for no scores, scores that aren't finite, or a rate outside (0, 0.5].
    """
    from scipy.stats import beta  # half a second, which only this needs
    scores = np.sort(np.asarray(scores, dtype=np.float64).ravel())[::-1]  # largest first
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError("a threshold needs the finite scores of at least one good image")
    if not 0 < false_alarm_rate <= 0.5:
        raise ValueError(f"false_alarm_rate must lie in (0, 0.5]; got {false_alarm_rate}")
    n = len(scores)
    k = max(floor(false_alarm_rate * (n + 1) + 1e-9), 1)  # the k-th largest score
    interval = tuple(float(q) for q in beta.ppf((0.05, 0.95), k, n + 1 - k))
    return Threshold(float(scores[k - 1]), false_alarm_rate, k / (n + 1), interval, n)
