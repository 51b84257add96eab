"""How good a score is at telling poisoned from benign images."""

import numpy as np
import numpy.typing as npt

__all__ = ["auroc"]

Floats = npt.NDArray[np.float64]


def auroc(benign: Floats, poisoned: Floats) -> float:
    """P(poisoned score > benign score) + ½ P(equal), over all pairs of (m,) and (n,) scores."""
    ordered = np.sort(benign)
    below = np.searchsorted(ordered, poisoned, side="left")
    not_above = np.searchsorted(ordered, poisoned, side="right")
    return float((below + not_above).mean() / 2 / len(benign))
