from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.pace import EVERY, Pace

Device = Callable[[int], float]


def gpu(weight: int) -> float:
    """Up to 256 rows in one step of a second."""
    return float(-(-weight // 256))


def cpu(weight: int) -> float:
    """Nothing gained from eight on, and a little lost from sixteen on."""
    return weight * {1: 6.0, 2: 6.0, 4: 6.2, 8: 4.75, 16: 5.0}.get(1 << (weight - 1).bit_length(), 5.3)


def overhead(weight: int) -> float:
    """Ten seconds, and five for each row: 32 rows take 170, which is 6 % more for each than a thousand."""
    return 10 + 5 * weight


def busy(pace: Pace, device: Device, batches: int, item: int = 1) -> list[int]:
    """The weights of so many batches of items that weigh `item`, where ten thousand always wait."""
    weights = []
    for _ in range(batches):
        weights.append(max(item, pace.choose(10_000) // item * item))
        pace.learn(weights[-1], device(weights[-1]))
    return weights


@pytest.mark.parametrize(("device", "limit"), [(gpu, 256), (cpu, 8), (overhead, 32)])
def test_the_smallest_batch_that_is_about_as_fast_as_any_is_found(device: Device, limit: int) -> None:
    pace = Pace(1024)
    assert (pace.limit, pace.choose(5000)) == (1024, 1024)
    weights = busy(pace, device, 400)
    assert pace.limit == limit
    assert sum(weight == limit for weight in weights[20:]) >= 380 * (1 - 1 / EVERY) - 1


@pytest.mark.parametrize(("device", "limit"), [(gpu, 256), (cpu, 8), (overhead, 32)])
def test_it_is_found_from_single_images_too(device: Device, limit: int) -> None:
    pace = Pace(1024)
    for _ in range(50):  # nobody waits: every item goes alone
        assert pace.choose(1) >= 1
        pace.learn(1, device(1))
    busy(pace, device, 40 * EVERY)
    assert pace.limit == limit


def test_what_first_prepares_something_is_not_held_against_a_size() -> None:
    pace, met = Pace(64), set[int]()

    def first_is_slow(weight: int) -> float:
        slow = weight not in met
        met.add(weight)
        return 10 * overhead(weight) if slow else overhead(weight)

    busy(pace, first_is_slow, 60 * EVERY)
    assert pace.limit == 16


def test_a_device_that_changes_is_followed() -> None:
    pace = Pace(1024)
    busy(pace, cpu, 200)
    assert pace.limit == 8
    busy(pace, gpu, 200 * EVERY)
    assert pace.limit == 256


def test_items_heavier_than_the_limit_go_alone_and_teach_what_they_weigh() -> None:
    pace = Pace(1024)
    weights = busy(pace, cpu, 300, item=7)
    assert pace.limit == 8
    assert weights[-EVERY:].count(7) >= EVERY - 1


def test_a_device_that_changes_is_followed_with_heavy_items_too() -> None:
    pace = Pace(1024)
    busy(pace, cpu, 300, item=7)
    busy(pace, gpu, 200 * EVERY, item=7)  # 36 items are 252 rows
    assert pace.limit == 256


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(1, 20_000), st.floats(1e-6, 100)), max_size=60),
)
def test_nothing_chosen_is_too_heavy_or_nothing(most: int, steps: list[tuple[int, float]]) -> None:
    pace = Pace(most)
    for waiting, seconds in steps:
        chosen = pace.choose(waiting)
        assert 1 <= chosen <= most
        assert 1 <= pace.limit <= most
        pace.learn(min(chosen, waiting), seconds)
