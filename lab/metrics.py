"""How good a score is at telling poisoned from benign images."""

import numpy as np
import numpy.typing as npt

__all__ = ["auroc", "target_auroc"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def auroc(benign: Floats, poisoned: Floats) -> float:
    """P(poisoned score > benign score) + ½ P(equal), over all pairs of (m,) and (n,) scores."""
    ordered = np.sort(benign)
    below = np.searchsorted(ordered, poisoned, side="left")
    not_above = np.searchsorted(ordered, poisoned, side="right")
    return float((below + not_above).mean() / 2 / len(benign))


def target_auroc(benign: Floats, predicted: Integers, poisoned: Floats, target: int) -> float | None:
    """AUROC against the benign images *predicted as the target label* alone: the honest one, since a
    detector that merely recognises the target label has 0.5 here. None without such images."""
    same = benign[predicted == target]
    return auroc(same, poisoned) if len(same) else None
