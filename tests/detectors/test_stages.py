"""The order of evaluation is the cheapest on the benign sample."""

import itertools

import numpy as np
import pytest

from detectors.stages import STAGE_COST, cheapest_stages, decided, expected_cost


def identity(mean: np.ndarray) -> np.ndarray:
    return mean


def test_decided_by_hand() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0], [0.9, 0.9]])
    limits = np.array([0.6, 0.4, 0.9])
    # Row 0 after term 0: at most 0.5 ≤ 0.6. Row 1: at least 0.5 > 0.4. Row 2: between 0.45 and 0.95.
    assert decided([0], values, limits, identity).tolist() == [True, True, False]
    assert decided([], values, limits, identity).tolist() == [False, False, False]
    assert decided([0, 1], values, limits, identity).all()


def test_cost_by_hand() -> None:
    """Both images need term 0 (cost 2); one of them also term 1 (cost 3)."""
    values, limits = np.array([[0.0, 0.0], [0.9, 0.9]]), np.array([0.6, 0.6])
    costs = np.array([2.0, 3.0])
    assert expected_cost([[0], [1]], values, limits, costs, identity) == pytest.approx(
        2 + 1.5 + 2 * STAGE_COST
    )
    assert expected_cost([[0, 1]], values, limits, costs, identity) == pytest.approx(5 + STAGE_COST)


def test_a_term_that_settles_everything_goes_first_and_alone() -> None:
    generator = np.random.default_rng(0)
    values = generator.random((400, 4))
    values[:, 2] = 0.0
    values[:, [0, 1, 3]] = 0.95
    assert cheapest_stages(values, np.full(400, 0.8), np.ones(4))[0] == [2]


def test_terms_that_settle_nothing_are_evaluated_together() -> None:
    values = np.ones((100, 4))
    assert len(cheapest_stages(values, np.full(100, 0.99), np.ones(4))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_orders(seed: int) -> None:
    """Against every ordered partition of four terms, tried one by one: none is cheaper."""
    generator = np.random.default_rng(seed)
    values = generator.random((300, 4)) ** generator.uniform(0.3, 6, 4)
    limits, costs = np.full(300, 0.7), generator.uniform(0.3, 1.0, 4)
    found = cheapest_stages(values, limits, costs)
    assert sorted(itertools.chain(*found)) == [0, 1, 2, 3]
    every = []
    for order in itertools.permutations(range(4)):
        for cuts in itertools.product([False, True], repeat=3):
            stages = [[order[0]]]
            for term, cut in zip(order[1:], cuts, strict=True):
                stages.append([term]) if cut else stages[-1].append(term)
            every.append(expected_cost(stages, values, limits, costs, identity))
    assert expected_cost(found, values, limits, costs, identity) == pytest.approx(min(every))


def test_many_terms_are_put_into_blocks() -> None:
    values = np.random.default_rng(1).random((200, 30))
    stages = cheapest_stages(values, np.full(200, 0.6), np.ones(30))
    assert sorted(itertools.chain(*stages)) == list(range(30))
