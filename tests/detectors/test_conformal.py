"""The numbers behind a budget: p-values, thresholds, ties and trimming, by hand and against references."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.conformal import (
    conformal_threshold,
    images_needed,
    p_values,
    rank_at,
    tie_probability,
    without_highest,
)

LEVELS = st.lists(st.sampled_from([0.0, 0.2, 0.4, 1.0]) | st.floats(0, 1), min_size=1, max_size=60)


def test_randomised_p_values_by_hand() -> None:
    benign = np.array([0.1, 0.2, 0.2, 0.9])
    # 0.2: one score above, two equal and itself: (1 + 3 u) / 5.
    scores, draws = np.array([0.2, 0.2, 0.95, 0.0]), np.array([0.0, 0.5, 0.25, 0.5])
    assert p_values(benign, scores, draws).tolist() == [0.2, 0.5, 0.05, 0.9]


def test_tie_probabilities_by_hand() -> None:
    # 99 scores, 20 of them 1: at 5 % r = 5, none above: (5 − 0) / (1 + 20).
    scores = np.concatenate([np.zeros(79), np.ones(20)])
    assert conformal_threshold(scores, 0.05) == 1.0
    assert tie_probability(scores, 0.05) == pytest.approx(5 / 21)
    # At 30 % r = 30: 20 above, 79 equal to 0.
    assert tie_probability(scores, 0.3) == pytest.approx(10 / 80)
    assert tie_probability(scores[:5], 0.05) == 0.0


@given(LEVELS, st.floats(0.02, 0.9), st.integers(0, 999))
@settings(max_examples=300, deadline=None)
def test_threshold_and_tie_probability_say_the_same_as_the_randomised_p_value(
    values: list[float], alpha: float, lot: int
) -> None:
    benign, draw = np.sort(np.array(values)), (lot + 0.5) / 1000
    level = rank_at(len(benign), alpha) / (len(benign) + 1)
    threshold, ties = conformal_threshold(benign, alpha), tie_probability(benign, alpha)
    for score in np.unique(np.concatenate([benign, benign + 1e-9, [-1.0, 2.0]])):
        (p_value,) = p_values(benign, np.array([score]), np.array([draw]))
        suspicious = score > threshold or (score == threshold and draw < ties)
        if abs(p_value - level) > 1e-12:
            assert suspicious == (p_value < level)


def test_a_score_that_is_not_a_number_is_the_most_suspicious_whatever_its_draw() -> None:
    benign = np.array([0.1, 0.2, 0.3])
    assert p_values(benign, np.array([np.nan, 5.0]), np.array([0.5, 0.5])).tolist() == [0.125, 0.125]


def test_trimming_by_hand() -> None:
    scores = np.arange(1.0, 101.0)
    assert without_highest(scores, 0.0).tolist() == scores.tolist()
    assert without_highest(scores, 0.05)[-1] == 95.0
    assert without_highest(scores, 0.001)[-1] == 99.0  # ⌈0.1⌉
    assert [images_needed(0.05, c) for c in (0.0, 0.05, 0.5)] == [19, 20, 38]


@given(
    st.lists(st.floats(0, 1), min_size=20, max_size=80),
    st.lists(st.floats(-2, 2), max_size=10),
    st.floats(0.05, 0.3),
)
@settings(max_examples=300, deadline=None)
def test_whatever_the_poison_the_trimmed_threshold_lies_between_two_benign_scores(
    benign: list[float], poison: list[float], alpha: float
) -> None:
    everything = np.sort(np.array(benign + poison))
    contamination = len(poison) / len(everything)
    drop = math.ceil(contamination * len(everything) - 1e-9)
    rank = rank_at(len(everything) - drop, alpha)
    threshold = conformal_threshold(without_highest(everything, contamination), alpha)
    if rank < 1:
        assert threshold == math.inf
        return
    largest_first = sorted(benign, reverse=True)
    assert threshold <= largest_first[rank - 1]
    if drop + rank <= len(benign):
        assert threshold >= largest_first[drop + rank - 1]


def test_trimming_clean_scores_costs_what_is_stated_and_no_more() -> None:
    generator = np.random.default_rng(3)
    alpha, contamination, count = 0.05, 0.04, 249
    rates = [  # of uniform scores: the share above T is 1 − T
        1 - conformal_threshold(without_highest(np.sort(generator.random(count)), contamination), alpha)
        for _ in range(2000)
    ]
    drop = 10  # ⌈0.04 · 249⌉
    kept = count - drop
    stated = (drop + rank_at(kept, alpha)) / (kept + 1)
    exact = (drop + rank_at(kept, alpha)) / (count + 1)
    error = np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) == pytest.approx(exact, abs=4 * error)
    assert np.mean(rates) < stated <= alpha + drop / (kept + 1)
