import itertools
from collections import Counter

import pytest
import torch

from bench.timing import Budget, interleave, orders, spread

CPU = torch.device("cpu")


def test_every_round_has_everyone_once_and_nobody_a_fixed_place() -> None:
    names = ["a", "b", "c"]
    rounds = list(itertools.islice(orders(names), 300))
    assert all(sorted(order) == names for order in rounds)
    places = Counter((name, order.index(name)) for order in rounds for name in names)
    assert min(places.values()) > 60


@pytest.mark.parametrize("least", [1, 4])
def test_rounds_are_interleaved(least: int) -> None:
    calls: list[tuple[str, int]] = []
    prepared: list[int] = []

    def recorder(name: str):  # type: ignore[no-untyped-def]
        return lambda number: calls.append((name, number))

    budget = Budget(seconds=0.0, least=least, most=10)
    seconds = interleave({n: recorder(n) for n in "abc"}, budget, CPU, prepare=prepared.append)
    assert {name: len(found) for name, found in seconds.items()} == dict.fromkeys("abc", least)
    for number, start in enumerate(range(0, len(calls), 3)):
        assert {name for name, _ in calls[start : start + 3]} == set("abc")
        assert {told for _, told in calls[start : start + 3]} == {number}
    assert prepared == list(range(len(calls) // 3))


def test_the_first_round_warms_up_and_rounds_are_bounded() -> None:
    shares: list[float] = []
    calls: list[int] = []
    seconds = interleave({"a": calls.append}, Budget(seconds=60.0, least=2, most=5), CPU, shares.append)
    assert len(seconds["a"]) == 5
    assert len(calls) == 6
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_spread() -> None:
    found = spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
