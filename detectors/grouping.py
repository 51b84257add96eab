"""Which predicted labels share a conformal threshold, where some have too few benign images for their own.

Labels with similar scores should share, so that one label whose benign scores are high (a sink class) does
not take the power away from the others. But whoever sorts labels by the very scores that then set the
thresholds spends more than the budget: a label lands among the low ones because its few scores happened to
be low. So a fifth of these labels' images, drawn at random, says who is similar, and the others set the
thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.base import Floats, Integers
from detectors.conformal import images_needed

__all__ = ["Group", "group_by_label"]

HELD_BACK = 5  # one image in so many, and at least one of each label

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Predicted `labels` that share one threshold, and their sorted benign `scores` (m,)."""

    labels: tuple[int, ...]
    scores: Floats

    @classmethod
    def of(cls, labels: Sequence[int], scores: Floats, predicted: Integers) -> "Group":
        return cls(tuple(sorted(int(n) for n in labels)), np.sort(scores[np.isin(predicted, labels)]))


def group_by_label(
    scores: Floats, predicted: Integers, alpha: float, contamination: float = 0.0, seed: int = 0
) -> tuple[Group, ...]:
    """Groups that partition the labels in `predicted` (m,): one for every label with enough `scores` (m,)
    for α, once a share `contamination` of them is trimmed; the others share. Where these are too few to make
    a choice, they are one group."""
    needed = images_needed(alpha, contamination)
    labels, counts = np.unique(predicted, return_counts=True)
    small = labels[counts < needed]
    large = [Group.of([label], scores, predicted) for label in labels[counts >= needed].tolist()]
    if len(small) == 0:
        return tuple(large)
    few = np.isin(predicted, small)
    held = few & held_back(predicted, seed)
    kept = few & ~held
    middles = {label: float(np.median(scores[held & (predicted == label)])) for label in small.tolist()}
    if few.sum() < needed and large:
        _join_nearest(large, middles, scores[kept])
        return tuple(large)
    if kept.sum() < 2 * needed:
        return (*large, Group.of(small.tolist(), scores, predicted))
    runs = _runs(sorted(middles, key=middles.__getitem__), predicted[kept], needed)
    return (*large, *(Group.of(run, scores[kept], predicted[kept]) for run in runs))


def held_back(predicted: Integers, seed: int) -> Mask:
    """(m,): a random fifth of every label's images, rounded up."""
    order = np.random.default_rng(seed).permutation(len(predicted))
    chosen = np.zeros(len(predicted), dtype=np.bool_)
    for label in np.unique(predicted):
        mine = order[predicted[order] == label]
        chosen[mine[: -(-len(mine) // HELD_BACK)]] = True
    return chosen


def _runs(ordered: Sequence[int], predicted: Integers, needed: int) -> list[list[int]]:
    """`ordered` labels cut into runs with at least `needed` images each; what is left joins the last."""
    runs: list[list[int]] = [[]]
    gathered = 0
    for label in ordered:
        if gathered >= needed:
            runs.append([])
            gathered = 0
        runs[-1].append(label)
        gathered += int((predicted == label).sum())
    if gathered < needed and len(runs) > 1:
        rest = runs.pop()
        runs[-1] += rest
    return runs


def _join_nearest(large: list[Group], middles: dict[int, float], scores: Floats) -> None:
    """Put labels that are too few even together into the large group with the nearest median.

    Judged by all scores instead, they would spend the whole budget once more, on top of what the other
    groups spend within themselves.
    """
    middle = float(np.median(list(middles.values())))
    distances = [abs(float(np.median(group.scores)) - middle) for group in large]
    nearest = int(np.argmin(distances))
    group = large[nearest]
    joined = np.sort(np.concatenate([group.scores, scores]))
    large[nearest] = Group(tuple(sorted([*group.labels, *middles])), joined)
