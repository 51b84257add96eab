"""A verdict reached early equals the verdict of the full score, on every image."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detectors.base import Terms
from detectors.early_exit import bounded_mean, mean_of


class Table:
    """An evaluator that looks terms up in a matrix (B, n) and counts what it was asked for."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.asked = values, torch.zeros_like(values, dtype=torch.long)

    def __call__(self, which: Sequence[int], rows: Tensor | None) -> Tensor:
        index = torch.arange(len(self.values)) if rows is None else rows
        self.asked[index[:, None], torch.tensor(list(which))[None, :]] += 1
        return self.values[index][:, list(which)]


def unknown(values: Tensor) -> Terms:
    return Terms.unknown(len(values), values.shape[1], values.device)


def test_a_hand_computed_row_stops_as_soon_as_it_is_certain() -> None:
    table = Table(torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.5, 0.5, 0.5, 0.5]]))
    thresholds = torch.full((3,), 0.7, dtype=torch.float64)

    scores = bounded_mean(unknown(table.values), [[0], [1], [2], [3]], table, thresholds)

    # Row 0 after 0, 1: at most (0 + 1 + 1 + 1) / 4 = 0.75 > 0.7, so all four are needed: 0.75.
    # Row 1 after three ones: at least 3/4 > 0.7: suspicious by its lower bound.
    # Row 2 after 0.5, 0.5: at most (1 + 2) / 4 = 0.75; after three: (1.5 + 1) / 4 = 0.625: cleared.
    assert scores.values.tolist() == [0.75, 0.75, 0.625]
    assert scores.exact.tolist() == [True, False, False]
    assert table.asked.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0]]


def test_without_thresholds_every_term_is_evaluated_at_once() -> None:
    table = Table(torch.tensor([[0.25, 0.75]]))
    scores = bounded_mean(unknown(table.values), [[1], [0]], table, None)
    assert scores.values.tolist() == [0.5]
    assert scores.exact.tolist() == [True]


def test_terms_that_another_score_evaluated_are_not_evaluated_again() -> None:
    table = Table(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    terms = unknown(table.values)
    bounded_mean(terms, [[0], [1, 2]], table, torch.full((5,), 0.9, dtype=torch.float64))
    full = bounded_mean(terms, [[0, 1, 2]], table, None)
    assert torch.equal(full.values, mean_of(table.values))
    # A row whose terms were partly known is completed as a whole; no row is evaluated a third time.
    assert table.asked.max() <= 2


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, list[list[int]]]:
    rows, terms = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    value = st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1, width=32))
    values = torch.tensor(draw(st.lists(value, min_size=rows * terms, max_size=rows * terms))).view(
        rows, terms
    )
    full = mean_of(values).tolist()
    # Thresholds at the scores themselves are the hard ones: a tie is not suspicious.
    limit = st.one_of(st.sampled_from([*full, 0.9, float("inf")]), st.floats(-0.5, 1.5))
    thresholds = torch.tensor([draw(limit) for _ in range(rows)], dtype=torch.float64)
    order = draw(st.permutations(range(terms)))
    cuts = sorted({0, terms, *draw(st.lists(st.integers(0, terms), max_size=3))})
    return values, thresholds, [order[a:b] for a, b in pairwise(cuts)]


@given(problems(), st.floats(0.05, 3.0), st.floats(-1.0, 1.0))
@settings(max_examples=300, deadline=None)
def test_early_verdicts_equal_full_verdicts(
    problem: tuple[Tensor, Tensor, list[list[int]]], sigma: float, mu: float
) -> None:
    values, thresholds, stages = problem

    def to_score(mean: Tensor) -> Tensor:
        return (mean - mu) / sigma

    for transform, limits in ((lambda m: m, thresholds), (to_score, to_score(thresholds))):
        full = bounded_mean(unknown(values), stages, Table(values), None, transform)
        early = bounded_mean(unknown(values), stages, Table(values), limits, transform)
        assert torch.equal(full.values > limits, early.values > limits)
        assert torch.equal(early.values[early.exact], full.values[early.exact])
        bounds = ~early.exact
        cleared, caught = bounds & (early.values <= limits), bounds & (early.values > limits)
        assert (early.values[cleared] >= full.values[cleared]).all()
        assert (early.values[caught] <= full.values[caught]).all()


@pytest.mark.parametrize("count", [1, 3, 5, 10])
def test_mean_of_agrees_with_numpy(count: int) -> None:
    values = torch.rand(50, count, generator=torch.Generator().manual_seed(count))
    np.testing.assert_allclose(mean_of(values).numpy(), values.double().numpy().mean(1), rtol=1e-15)


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_terms_that_no_stage_evaluates_clear_nobody(threshold: float | None) -> None:
    """Such stages come from a damaged calibration. The one known term says neither yes nor no."""
    limits = None if threshold is None else torch.full((2,), threshold, dtype=torch.float64)
    table = Table(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]))
    scores = bounded_mean(unknown(table.values), [[0]], table, limits)
    assert scores.values.tolist() == [1.0, 1.0]
    assert scores.exact.tolist() == [False, False]
