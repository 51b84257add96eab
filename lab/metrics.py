"""How good a score is at telling poisoned from benign images."""

import numpy as np
import numpy.typing as npt

__all__ = ["RESAMPLES", "Interval", "auroc", "auroc_interval", "f1", "target_auroc", "target_auroc_interval"]

RESAMPLES = 500

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Interval = tuple[float, float]


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


def f1(false_alarms: int, stopped: int, poisoned: int) -> float:
    """2 TP / (2 TP + FP + FN) of `stopped` among `poisoned` ≥ 1 images, with `false_alarms` among the benign
    ones judged beside them. Unlike TPR and FPR it depends on how many images of each kind there are."""
    return 2 * stopped / (stopped + false_alarms + poisoned)


def auroc_interval(benign: Floats, poisoned: Floats, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """95 % percentile bootstrap interval of `auroc` (Efron, 1979): both sets drawn anew, each with its own
    size. At an AUROC of exactly 0 or 1 it has no width, which says nothing about the next images."""
    rng = np.random.default_rng(seed)
    ranks = np.unique(np.concatenate([benign, poisoned]), return_inverse=True)[1].reshape(-1)
    below = _drawn(rng, ranks[: len(benign)], ranks.max() + 1, resamples)
    above = _drawn(rng, ranks[len(benign) :], ranks.max() + 1, resamples)
    wins = (above * (below.cumsum(1) - below / 2)).sum(1)
    low, high = np.quantile(wins / len(benign) / len(poisoned), (0.025, 0.975))
    return float(low), float(high)


def _drawn(rng: np.random.Generator, ranks: Integers, count: int, resamples: int) -> Integers:
    """(resamples, count): how often each rank 0..count − 1 occurs in as many draws of `ranks` (m,)."""
    drawn = ranks[rng.integers(0, len(ranks), (resamples, len(ranks)))]
    cells = drawn + count * np.arange(resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=resamples * count).reshape(resamples, count)


def target_auroc_interval(
    benign: Floats, predicted: Integers, poisoned: Floats, target: int, seed: int = 0
) -> Interval | None:
    """`auroc_interval` of `target_auroc`, given how many benign images are predicted as the target label."""
    same = benign[predicted == target]
    return auroc_interval(same, poisoned, seed) if len(same) else None
