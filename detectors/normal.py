"""A threshold from the mean and deviation of benign scores: STRIP's own, and for papers that name none."""

import numpy as np

from detectors.base import Fit, Floats

__all__ = ["normal_fit", "normal_thresholds"]

NORMAL_99 = 2.326  # a standard normal variable exceeds it once in a hundred


def normal_fit(scores: Floats) -> dict[str, float]:
    """Mean and standard deviation of benign scores (m,), m ≥ 1; JSON."""
    return {"mean": float(scores.mean()), "std": float(scores.std())}


def normal_thresholds(fit: Fit, classes: int) -> Floats:
    """(classes,): what 1 % of benign images would exceed if their scores were normal."""
    return np.full(classes, fit["mean"] + NORMAL_99 * fit["std"])
