import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.callers import quota
from app.callers.quota import Quota, RateLimited


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_the_rate(clock: Clock) -> None:
    bucket = Quota(rate=2, burst=3, clock=clock)
    for _ in range(3):
        bucket.charge("a", 1)
    with pytest.raises(RateLimited) as refused:
        bucket.charge("a", 1)
    assert refused.value.retry_after == 0.5
    clock.now = 0.5
    bucket.charge("a", 1)
    clock.now = 100.0
    for _ in range(3):  # never more than the burst, however long the pause
        bucket.charge("a", 1)
    with pytest.raises(RateLimited):
        bucket.charge("a", 1)


def test_a_large_request_is_paid_back(clock: Clock) -> None:
    bucket = Quota(rate=10, burst=5, clock=clock)
    bucket.charge("a", 1)
    bucket.charge_more("a", 63)  # known after its form was read
    with pytest.raises(RateLimited) as refused:
        bucket.charge("a", 1)
    assert refused.value.retry_after == pytest.approx(6.0)  # from -59 to 1
    clock.now = 5.9
    with pytest.raises(RateLimited):
        bucket.charge("a", 1)
    clock.now = 6.001
    bucket.charge("a", 1)


def test_callers_do_not_share(clock: Clock) -> None:
    bucket = Quota(rate=1, burst=1, clock=clock)
    bucket.charge("a", 1)
    bucket.charge("b", 1)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20)), max_size=60))
def test_in_the_long_run_nobody_gets_more_than_the_rate(steps: list[tuple[float, int]]) -> None:
    """Whatever is asked when: images let in ≤ burst + rate · time + the last request's own."""
    clock = Clock()
    bucket = Quota(rate=4, burst=8, clock=clock)
    let_in = 0
    for pause, images in steps:
        clock.now += pause
        with contextlib.suppress(RateLimited):
            bucket.charge("a", images)
            let_in += images
            assert let_in <= 8 + 4 * clock.now + images


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MOST_CALLERS", 3)
    bucket = Quota(rate=1, burst=1, clock=clock)
    for name in "abcd":
        bucket.charge(name, 1)
    assert list(bucket._buckets) == ["b", "c", "d"]
