"""Bounded counts of scores, by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detectors.histogram import BINS, Bins, quantiles

INFINITE = np.array([np.inf])


def test_counts_by_hand() -> None:
    bins = Bins(0.0, 32.0)  # one unit each
    found = bins.counts(np.array([-5.0, 0.0, 0.5, 1.0, 31.5, 32.0, 99.0]))
    assert found == [3, 1, *[0] * (BINS - 3), 3]
    assert bins.to_json(np.array([32.0, 33.0]))["beyond"] == 1


def test_a_bounded_score_is_drawn_up_to_its_maximum() -> None:
    assert Bins.around(np.array([0.2, 0.4]), np.array([0.9, np.inf]), np.ones(2)) == Bins(0.2, 1.0)


def test_a_long_tail_is_cut_off_beyond_the_thresholds() -> None:
    scores = np.append(np.zeros(1000), 1e9)
    assert Bins.around(scores, np.array([10.0]), INFINITE) == Bins(0.0, 12.0)


def test_scores_that_are_all_the_same() -> None:
    bins = Bins.around(np.zeros(5), INFINITE, np.zeros(1))
    assert bins == Bins(0.0, 1.0)
    assert bins.counts(np.zeros(5))[0] == 5


@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e6, 1e6)), st.floats(-1e6, 1e6))
def test_every_score_is_counted_once(scores: np.ndarray, threshold: float) -> None:
    bins = Bins.around(scores, np.array([threshold]), INFINITE)
    assert sum(bins.counts(scores)) == len(scores)
    assert bins.low <= threshold


def test_quantiles() -> None:
    found = quantiles(np.arange(101.0))
    assert (found["min"], found["q05"], found["median"], found["q99"], found["max"]) == (0, 5, 50, 99, 100)
