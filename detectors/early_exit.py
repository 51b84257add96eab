"""Exact early exit for scores that are means of terms in [0, 1] (SPC, PSC).

Once the terms not yet evaluated can no longer move the score across the threshold, the verdict is
certain and the rest need not be computed. The mean is summed in float64 in a fixed order, so it is
monotone in every term even after rounding, and a bound can never contradict the full score.
"""

from collections.abc import Callable, Sequence

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
    them everything is evaluated at once. The score is `to_score(mean of the terms)`.
    """
    if thresholds is None:
        stages = [[term for stage in stages for term in stage]]
    for stage in stages:
        undecided = ~terms.known[:, list(stage)].all(1)
        if thresholds is not None:
            lower, upper = _bounds(terms, to_score)
            undecided &= ~((lower > thresholds) | (upper <= thresholds))
        _fill(terms, list(stage), undecided, evaluate)
    lower, upper = _bounds(terms, to_score)
    exact = terms.known.all(1)
    if thresholds is None:
        return Scores(lower, exact)
    # A row that is not exact was decided: below the threshold by its upper bound, above by its lower.
    return Scores(torch.where(upper <= thresholds, upper, lower), exact)


def _bounds(terms: Terms, to_score: Monotone) -> tuple[Tensor, Tensor]:
    """The least and the largest score that the known terms still allow."""
    zero, one = torch.zeros_like(terms.values), torch.ones_like(terms.values)
    least = mean_of(torch.where(terms.known, terms.values, zero))
    most = mean_of(torch.where(terms.known, terms.values, one))
    return to_score(least), to_score(most)


def _fill(terms: Terms, stage: list[int], wanted: Tensor, evaluate: Evaluate) -> None:
    rows = wanted.nonzero().squeeze(1)
    if len(rows) == 0:
        return
    if len(rows) == len(wanted):
        terms.values[:, stage] = evaluate(stage, None).float()
        terms.known[:, stage] = True
        return
    index = rows[:, None], torch.tensor(stage, device=rows.device)[None, :]
    terms.values[index] = evaluate(stage, rows).float()
    terms.known[index] = True
