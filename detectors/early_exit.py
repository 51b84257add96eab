"""Exact early exit: stop as soon as what is not evaluated yet can no longer change the verdict.

A score is made of terms, and `Bounds` say between which two values it must lie once some of them are known.
Means of terms in [0, 1] (SPC, PSC) have such bounds, and so have sums of surprises and ladders of distances
(`detectors.label_profile`, `detectors.profile`). Everything is summed in float64 in a fixed order, so that
bounds are monotone in every term even after rounding, and can never contradict the full score.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from detectors.base import Scores, Terms

__all__ = ["Bounds", "Evaluate", "bounded_mean", "evaluate_until_certain", "mean_of", "sum_of"]

Evaluate = Callable[[Sequence[int], Tensor | None], Tensor]
"""(term numbers, row numbers or None for all rows) → values (rows, terms)."""

Bounds = Callable[[Terms], tuple[Tensor, Tensor]]
"""The least and the largest score (B,) float64 that the known terms still allow; equal where it is known."""

Monotone = Callable[[Tensor], Tensor]
"""An increasing map from means (B,) to scores (B,), increasing also after rounding."""


def identity(mean: Tensor) -> Tensor:
    return mean


def sum_of(values: Tensor) -> Tensor:
    """Sum over the columns of (B, n), in float64, column after column; returns (B,)."""
    total = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    for column in values.unbind(1):
        total = total + column.double()
    return total


def mean_of(values: Tensor) -> Tensor:
    """Mean over the columns of (B, n), as `sum_of` adds; returns (B,)."""
    return sum_of(values) / values.shape[1]


def bounded_mean(
    terms: Terms,
    stages: Sequence[Sequence[int]],
    evaluate: Evaluate,
    thresholds: Tensor | None,
    to_score: Monotone = identity,
) -> Scores:
    """`evaluate_until_certain` where the score is `to_score(mean of the terms)` and terms lie in [0, 1]."""

    def bounds(known: Terms) -> tuple[Tensor, Tensor]:
        zero, one = torch.zeros_like(known.values), torch.ones_like(known.values)
        least = mean_of(torch.where(known.known, known.values, zero))
        most = mean_of(torch.where(known.known, known.values, one))
        return to_score(least), to_score(most)

    return evaluate_until_certain(terms, stages, evaluate, thresholds, bounds)


def evaluate_until_certain(
    terms: Terms,
    stages: Sequence[Sequence[int]],
    evaluate: Evaluate,
    thresholds: Tensor | None,
    bounds: Bounds,
) -> Scores:
    """Evaluate `terms` stage by stage until every row's verdict `score > threshold` is certain.

    `stages` lists the term numbers that are evaluated together; between two stages the rows that are
    decided drop out, which costs one device-to-host synchronisation. `thresholds` (B,) float64; without
    them everything is evaluated at once, without any.
    """
    if thresholds is None:
        stages = [[term for stage in stages for term in stage]]
    for stage in stages:
        columns = _columns(tuple(stage), terms.values.device)
        if thresholds is None and not terms.begun:
            _fill(terms, stage, columns, None, evaluate)
            continue
        undecided = ~terms.known[:, columns].all(1)
        if thresholds is not None:
            lower, upper = bounds(terms)
            undecided &= ~((lower > thresholds) | (upper <= thresholds))
        rows = undecided.nonzero().squeeze(1)  # the one synchronisation of this stage
        if len(rows):
            _fill(terms, stage, columns, rows if len(rows) < len(undecided) else None, evaluate)
    lower, upper = bounds(terms)
    exact = terms.known.all(1) | (lower == upper)
    if thresholds is None:
        return Scores(upper, exact)
    # A row that is not exact was decided: below the threshold by its upper bound, above by its lower. Where
    # `stages` left terms out and nothing was decided, the upper bound clears nobody.
    return Scores(torch.where(lower > thresholds, lower, upper), exact)


def _fill(
    terms: Terms, stage: Sequence[int], columns: Tensor, rows: Tensor | None, evaluate: Evaluate
) -> None:
    terms.begun = True
    found = evaluate(stage, rows).float()
    where = (slice(None), columns) if rows is None else (rows[:, None], columns)
    terms.values[where] = found
    # A tensor that is there already: a Python number would be copied to the device.
    terms.known[where] = torch.ones_like(found, dtype=torch.bool)


@lru_cache(maxsize=256)
def _columns(stage: tuple[int, ...], device: torch.device) -> Tensor:
    """The numbers of a stage's terms, on the device: made once, not copied there for every batch."""
    return torch.tensor(stage, device=device)
