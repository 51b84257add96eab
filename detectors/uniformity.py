"""Are these p-values uniform? The Kolmogorov–Smirnov test of one sample."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["kolmogorov_smirnov"]


def kolmogorov_smirnov(p_values: Sequence[float]) -> float:
    """The chance that uniform p-values lie so far from uniform as `p_values`, in [0, 1]; 1 of none.

    By the tail of Kolmogorov's distribution with Stephens' correction for few values (Stephens, "EDF
    statistics for goodness of fit and some comparisons", JASA 69, 1974, table 1A), good to a few per cent
    of itself where it is small.
    """
    count = len(p_values)
    if count == 0:
        return 1.0
    values = np.sort(np.asarray(p_values, dtype=np.float64))
    steps = np.arange(count + 1) / count
    distance = max(float((steps[1:] - values).max()), float((values - steps[:-1]).max()))
    scaled = distance * (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count))
    terms = [(-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)]
    return min(1.0, max(0.0, 2 * sum(terms))) if scaled > 0.2 else 1.0  # the series fails near 0
