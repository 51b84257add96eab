"""Bets that keep what they promise: exact against slow references, and by simulation."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.martingale import (
    ODDS,
    P_VALUE_BETS,
    Cusum,
    EventUrn,
    RankUrn,
    event_factors,
    p_value_factors,
)


def test_an_urn_predicts_by_polyas_rule() -> None:
    """Three benign scores leave four gaps; every p-value is drawn from the gap's share of the urn."""
    urn = RankUrn(np.array([3.0, 1.0, 2.0]), Random(0))
    # First image in the highest of four gaps: p within [0, 1/4]; it then counts twice.
    assert 0 <= urn.p_value(9.0) <= 1 / 4
    # The lowest of the four gaps, which hold 2 + 1 + 1 + 1 of five balls: the last fifth.
    assert 4 / 5 <= urn.p_value(0.0) <= 1
    # The second highest gap: above it 2 of six balls, in it 1.
    assert 2 / 6 <= urn.p_value(2.5) <= 3 / 6
    urn.restart()
    assert 3 / 4 <= urn.p_value(0.0) <= 1
    assert 0 <= urn.p_value(math.nan) <= 1 / 5  # not a number: the most suspicious


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(-1, 5), st.integers(0, 100))
def test_the_first_p_value_is_the_smoothed_one(benign: list[int], score: int, seed: int) -> None:
    """Whatever the ties: between the share strictly above and the share at least as high, itself included."""
    p = RankUrn(np.array(benign, dtype=float), Random(seed)).p_value(float(score))
    total = len(benign) + 1
    above = sum(other > score for other in benign)
    equal = sum(other == score for other in benign)
    assert above / total - 1e-12 <= p <= (above + equal + 1) / total + 1e-12


@pytest.mark.parametrize("levels", [None, 6, 1])
def test_p_values_are_uniform_and_independent(levels: int | None) -> None:
    """With continuous scores, six levels as SPC has, and all the same: on every sample, not on average,
    in the long run, though the sample has 20 scores only."""
    random = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        scores = random.random(count)
        return scores if levels is None else np.floor(scores * levels)

    found = []
    for seed in range(300):
        urn = RankUrn(draw(20), Random(seed))
        found.append([urn.p_value(score) for score in draw(200)])
    p = np.array(found)
    for each in (p, p[:, 0], p[:, -1], p[:5]):
        ordered = np.sort(each.ravel())
        distance = np.abs(ordered - (np.arange(ordered.size) + 0.5) / ordered.size).max()
        assert distance < 1.95 / math.sqrt(ordered.size)  # Kolmogorov–Smirnov at 0.1 %
    assert abs(np.corrcoef(p[:, :-1].ravel(), p[:, 1:].ravel())[0, 1]) < 4 / math.sqrt(p.size)


def test_an_urn_is_bounded_in_memory() -> None:
    urn = RankUrn(np.random.default_rng(0).random(5000), Random(0))
    for score in np.random.default_rng(1).random(2000):
        urn.p_value(float(score))
    assert len(urn._weights) == 256
    assert sum(urn._weights) == urn._total == 7001


def test_an_event_urn_by_hand() -> None:
    urn = EventUrn(above=1, count=99)
    assert urn.chance(True) == 2 / 100
    assert urn.chance(False) == 3 / 101
    assert urn.chance(False) == 3 / 102
    urn.restart()
    assert urn.chance(False) == 2 / 100


@given(st.floats(0.001, 1))
def test_bets_on_events_are_fair(chance: float) -> None:
    won, lost = event_factors(True, chance), event_factors(False, chance)
    assert len(won) == len(ODDS)
    for up, down in zip(won, lost, strict=True):
        assert chance * up + (1 - chance) * down == pytest.approx(1)
        assert up >= 1 >= down


def test_bets_on_p_values_are_fair() -> None:
    """∫ of each over [0, 1] is 1, here on a grid that is fine at both ends."""
    half = np.concatenate([[0], np.exp(np.linspace(math.log(1e-12), math.log(0.5), 5000))])
    grid = np.concatenate([half, 1 - half[::-1][1:]])
    values = np.array([p_value_factors(p) for p in grid.tolist()])
    means = np.trapezoid(values, grid, axis=0)
    assert means == pytest.approx(np.ones(P_VALUE_BETS), abs=2e-3)
    assert all(math.isfinite(factor) for p in (0.0, 1.0) for factor in p_value_factors(p))


def test_cusum_by_hand() -> None:
    cusum = Cusum(2)
    assert cusum.update([3.0, 0.5], 1) == (3 + 0.5) / 2
    assert cusum.update([2.0, 4.0], 2) == (6 + 4) / 2  # the second bet began again at 1
    assert cusum.began == 1
    assert cusum.update([0.1, 2.0], 3) == pytest.approx((0.6 + 8) / 2)
    assert cusum.began == 2
    cusum.restart()
    assert cusum.value == 0
    assert cusum.update([2.0, 2.0], 9) == 2
    assert cusum.began == 9


def test_false_alarms_stay_within_the_promise() -> None:
    """P(an alarm within n images) ≤ n / c, from samples of 50 scores, by both kinds of test."""
    limit, images, runs = 2000.0, 500, 200
    random = np.random.default_rng(0)
    alarms = np.zeros(2)
    for seed in range(runs):
        benign = random.random(50)
        ranks, scores = RankUrn(benign, Random(seed)), Cusum(P_VALUE_BETS)
        events, verdicts = EventUrn(int((benign > 0.95).sum()), 50), Cusum(len(ODDS))
        highest = np.zeros(2)
        for number, score in enumerate(random.random(images).tolist(), start=1):
            first = scores.update(p_value_factors(ranks.p_value(score)), number)
            happened = score > 0.95
            second = verdicts.update(event_factors(happened, events.chance(happened)), number)
            highest = np.maximum(highest, [first, second])
        alarms += highest >= limit
    allowed = runs * images / limit
    assert (alarms <= allowed).all()
