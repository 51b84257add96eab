"""What a caller without the admin key is told of a detector: which side, and roughly how usual.

Every suspicious image gets the same answer, so nobody who wants one past the firewall can tell from an answer
whether the last change was for the better (docs/adr/0009).
"""

import math
from dataclasses import replace

from app.policy import Detection

__all__ = ["P_VALUES", "coarse"]

P_VALUES = (0.1, 0.5, 1.0)
"""To which p-values of images that a detector clears are rounded up; of others it is 0."""


def coarse(found: Detection) -> Detection:
    """`found` as a function of `suspicious` and the bucket of its p-value, and of nothing else.

    The score is 1 − p, so 1 where suspicious; no threshold, which would give away the predicted label; never
    exact, so that when a detector stopped is not told either.
    """
    p_value = None if found.p_value is None else _rounded(found.p_value, found.suspicious)
    score = float(found.suspicious) if p_value is None else 1 - p_value
    return replace(found, score=score, threshold=math.inf, p_value=p_value, exact=False)


def _rounded(p_value: float, suspicious: bool) -> float:
    return 0.0 if suspicious else next(bucket for bucket in P_VALUES if p_value <= bucket)
