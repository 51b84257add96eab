"""Exact early exit for scores that are means of terms in [0, 1] (SPC, PSC).

Once the terms not yet evaluated can no longer move the score across the threshold, the verdict is
certain and the rest need not be computed. The mean is summed in float64 in a fixed order, so it is
monotone in every term even after rounding, and a bound can never contradict the full score.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from detectors.base import Scores, Terms

__all__ = ["Evaluate", "bounded_mean", "mean_of"]

Evaluate = Callable[[Sequence[int], Tensor | None], Tensor]
"""(term numbers, row numbers or None for all rows) → values (rows, terms) in [0, 1]."""

Monotone = Callable[[Tensor], Tensor]
"""An increasing map from means (B,) to scores (B,), increasing also after rounding."""


def identity(mean: Tensor) -> Tensor:
    return mean


def mean_of(values: Tensor) -> Tensor:
    """Mean over the columns of (B, n), in float64, column after column; returns (B,)."""
    total = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    for column in values.unbind(1):
        total = total + column.double()
    return total / values.shape[1]


def bounded_mean(
    terms: Terms,
    stages: Sequence[Sequence[int]],
    evaluate: Evaluate,
    thresholds: Tensor | None,
    to_score: Monotone = identity,
) -> Scores:
    """Evaluate `terms` stage by stage until every row's verdict `score > threshold` is certain.

    `stages` lists the term numbers that are evaluated together; between two stages the rows that are
    decided drop out, which costs one device-to-host synchronisation. `thresholds` (B,) float64; without
    them everything is evaluated at once, without any. The score is `to_score(mean of the terms)`.
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
            lower, upper = _bounds(terms, to_score)
            undecided &= ~((lower > thresholds) | (upper <= thresholds))
        rows = undecided.nonzero().squeeze(1)  # the one synchronisation of this stage
        if len(rows):
            _fill(terms, stage, columns, rows if len(rows) < len(undecided) else None, evaluate)
    lower, upper = _bounds(terms, to_score)
    exact = terms.known.all(1)
    if thresholds is None:
        return Scores(upper, exact)
    # A row that is not exact was decided: below the threshold by its upper bound, above by its lower. Where
    # `stages` left terms out and nothing was decided, the upper bound clears nobody.
    return Scores(torch.where(lower > thresholds, lower, upper), exact)


def _bounds(terms: Terms, to_score: Monotone) -> tuple[Tensor, Tensor]:
    """The least and the largest score that the known terms still allow."""
    zero, one = torch.zeros_like(terms.values), torch.ones_like(terms.values)
    least = mean_of(torch.where(terms.known, terms.values, zero))
    most = mean_of(torch.where(terms.known, terms.values, one))
    return to_score(least), to_score(most)


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
