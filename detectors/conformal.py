"""Split conformal prediction in plain numbers: benign scores → p-values, thresholds, ties, budgets.

p(x) = (1 + #{benign ≥ s(x)}) / (m + 1)                   conservative ties
p(x) = (#{benign > s} + u · (1 + #{benign = s})) / (m + 1)   randomised ties, u uniform on [0, 1)

Suspicious where p ≤ r / (m + 1) with r = ⌊α (m + 1)⌋: for conservative ties the same as p ≤ α, and under
randomised ones the budget in whole images. Exchangeable benign images then have P(p ≤ α) ≤ α whatever the
detector and whatever ties there are (Vovk, Gammerman and Shafer, 2005, section 2.2; smoothed: equation 2.20).
"""

import math
from typing import Literal

import numpy as np

from detectors.base import Floats

__all__ = [
    "Ties",
    "conformal_threshold",
    "images_needed",
    "p_values",
    "rank_at",
    "smallest_alpha",
    "tie_probability",
    "without_highest",
]

Ties = Literal["conservative", "randomised"]
ROUNDING = 1e-9  # 0.01 · 100 must be 1, not 0.99…


def smallest_alpha(count: int) -> float:
    """The smallest budget that `count` benign scores support: 1 / (m + 1)."""
    return 1 / (count + 1)


def images_needed(alpha: float, contamination: float = 0.0) -> int:
    """The fewest benign scores that support the budget `alpha`: ⌈1/α⌉ − 1, after `without_highest`."""
    return math.ceil((math.ceil(1 / alpha - ROUNDING) - 1) / (1 - contamination) - ROUNDING)


def without_highest(scores: Floats, contamination: float) -> Floats:
    """Sorted `scores` (m,) without the t = ⌈contamination · m⌉ highest: (m − t,).

    With n = m − t and r = ⌊α (n + 1)⌋ the threshold is then the (t + r)-th largest of all. Where at most t of
    the m scores are not benign, whatever these are, it is at most the r-th largest benign one: what a
    calibration on the benign ones alone would reject at rank r is still rejected. And it is at least the
    (t + r)-th largest benign one: the false-positive rate is at most (t + r)/(n + 1) ≤ α + t/(n + 1).
    """
    drop = math.ceil(contamination * len(scores) - ROUNDING)
    return scores[: len(scores) - drop]


def rank_at(count: int, alpha: float) -> int:
    """r = ⌊α (m + 1)⌋: p ≤ α means that at most r − 1 of `count` benign scores are ≥ s."""
    return math.floor(alpha * (count + 1) + ROUNDING)


def conformal_threshold(scores: Floats, alpha: float) -> float:
    """The T for which `score > T` says the same as `p ≤ alpha` (ties conservative): the r-th largest of the
    benign `scores` (m,); +inf where no score can be that rare."""
    rank = rank_at(len(scores), alpha)
    if rank < 1:
        return math.inf
    return float(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def tie_probability(scores: Floats, alpha: float) -> float:
    """The share of images with score = T exactly that randomised ties reject, in [0, 1).

    p ≤ r / (m + 1), the largest attainable level within α, says `score > T, or score = T and u < q` with
    q = (r − #{benign > T}) / (1 + #{benign = T}).
    """
    rank = rank_at(len(scores), alpha)
    if rank < 1:
        return 0.0
    threshold = conformal_threshold(scores, alpha)
    return float((rank - (scores > threshold).sum()) / (1 + (scores == threshold).sum()))


def p_values(benign: Floats, scores: Floats, draws: Floats | None = None) -> Floats:
    """Conformal p-values of `scores` (B,) against sorted `benign` (m,); NaN counts as most suspicious.

    With `draws` (B,) in [0, 1) ties are randomised, else conservative.
    """
    above = len(benign) - np.searchsorted(benign, scores, side="right")
    at_least = len(benign) - np.searchsorted(benign, scores, side="left")
    counts = 1 + at_least if draws is None else above + draws * (1 + at_least - above)
    unknown = 1.0 if draws is None else draws
    values: Floats = np.where(np.isnan(scores), unknown, counts) / (len(benign) + 1)
    return values
