"""Scores as counts: what a report keeps of a distribution, however many images there were."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.base import Floats

__all__ = ["BINS", "Bins", "quantiles"]

BINS = 32


@dataclass(frozen=True)
class Bins:
    """Equal bins between `low` and `high`; scores outside are counted in the first and in the last."""

    low: float
    high: float

    @classmethod
    def around(cls, scores: Floats, thresholds: Floats, maxima: Floats) -> "Bins":
        """Bins that hold benign `scores` (m,), every finite threshold, and the largest possible score.

        Where there is no largest score, a long tail is cut off well beyond all thresholds.
        """
        limits = thresholds[np.isfinite(thresholds)]
        if np.isfinite(maxima).all():
            high = float(maxima.max())
        else:
            high = 1.2 * float(max(np.quantile(scores, 0.99), limits.max(initial=-np.inf)))
        low = float(min(scores.min(), limits.min(initial=np.inf)))
        return cls(low, high if high > low else low + 1.0)

    def counts(self, scores: Floats) -> list[int]:
        """How many of `scores` (m,) lie in each bin."""
        inside = np.clip(scores, self.low, self.high)
        found: list[int] = np.histogram(inside, bins=BINS, range=(self.low, self.high))[0].tolist()
        return found

    def to_json(self, scores: Floats) -> dict[str, Any]:
        """`beyond` counts the scores above `high`, which are in the last bin too."""
        beyond = int((scores > self.high).sum())
        return {"low": self.low, "high": self.high, "beyond": beyond, "counts": self.counts(scores)}


def quantiles(scores: Floats) -> dict[str, float]:
    """Selected quantiles of (m,) scores by name."""
    levels = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}
    return {name: float(np.quantile(scores, level)) for name, level in levels.items()}
