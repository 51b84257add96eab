"""The simulated batcher forms the batches that the gateway's own forms, at the same times."""

import asyncio
import math
import selectors
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import app.batcher
from app.batcher import Overloaded
from app.settings import Settings
from bench.plan.batcher import BATCH_DELAY, BATCH_ROWS, QUEUE_ROWS, Batcher, Limits
from bench.plan.service import ServiceTimes
from bench.plan.simulation import Fleet, _Run

Batches = list[tuple[float, list[int]]]


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now = 0.0
        self._selector.select = self._jump  # type: ignore[attr-defined]

    def _jump(self, timeout: float | None) -> list[Any]:
        assert timeout is not None, "everybody waits for nothing"
        if timeout > 0:
            # Not `now + timeout`: that may round to just before the timer, and be awaited for ever.
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        # A timer that is due now is run, and none that is due any later: it would be run without a jump, find
        # that its time has not come, and be set again for ever.
        self._clock_resolution = math.ulp(self.now)
        return []

    def time(self) -> float:
        return self.now


def real(arrivals: Sequence[float], limits: Limits, weight: int, seconds: Callable[[int], float]) -> Batches:
    """The batches of the gateway's own batcher; the refused are those in none."""
    loop, formed = VirtualTime(), []

    async def run(_: Any, items: Sequence[int]) -> Sequence[int]:
        formed.append((loop.now, list(items)))
        await asyncio.sleep(seconds(len(items)))
        return items

    async def one(batcher: "app.batcher.Batcher[int, int]", number: int, due: float) -> None:
        await asyncio.sleep(due)
        try:
            await batcher.submit(number, weight, flow="everybody")
        except Overloaded:
            return

    async def whole() -> None:
        batcher = app.batcher.Batcher[int, int](
            lambda items: items, run, max_weight=limits.batch_rows, max_delay=limits.batch_delay,
            max_waiting=limits.queue_rows,
        )  # fmt: skip
        batcher.start()
        await asyncio.gather(*(one(batcher, number, due) for number, due in enumerate(arrivals)))
        await batcher.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.batcher, "time", SimpleNamespace(monotonic=loop.time))
        try:
            loop.run_until_complete(whole())
        finally:
            loop.close()
    return formed


def simulated(
    arrivals: Sequence[float], limits: Limits, weight: int, seconds: Callable[[int], float]
) -> Batches:
    """The same of the simulation, on these arrivals instead of random ones."""
    longest = max(len(arrivals), 1)
    points = tuple((float(size), seconds(size)) for size in range(1, longest + 1))
    run = _Run(Fleet(ServiceTimes("x", weight, points), limits), _Dice(arrivals))
    (replica,), formed = run.replicas, []
    take = replica.batcher.take

    def taken() -> list[int]:
        batch = take()
        formed.append((run.now, batch))
        return batch

    replica.batcher.take = taken  # type: ignore[method-assign]
    run.through(1.0, len(arrivals))
    return formed


class _Dice:
    """Draws the gaps between given arrivals; everything else is 0."""

    def __init__(self, arrivals: Sequence[float]) -> None:
        before = [0.0, *arrivals]
        self._gaps = iter([after - first for first, after in zip(before, arrivals, strict=False)])

    def expovariate(self, _: float) -> float:
        return next(self._gaps)

    def random(self) -> float:
        return 0.0


TICK = 2**-20
"""Seconds. Gaps and times of service are whole ticks, so that every sum of them is exact on both sides, and a
delay and a batch have a little over (at most 60 of each), so that no two things happen at the same time:
which of them is first is then not anybody's claim."""
OVER_A_DELAY, OVER_A_BATCH = 2**-27, 2**-34

ticks = st.integers(10, 30_000).map(lambda count: count * TICK)
delays = st.sampled_from([0.0, 2_200 * TICK + OVER_A_DELAY, 11_000 * TICK + OVER_A_DELAY])


@settings(deadline=None, max_examples=150, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(
    gaps=st.lists(ticks, min_size=1, max_size=60),
    weight=st.integers(1, 7),
    batch_rows=st.integers(1, 30),
    queue_rows=st.integers(1, 80),
    delay=delays,
    base=ticks.map(lambda seconds: seconds + OVER_A_BATCH),
    slope=st.integers(0, 4_000).map(lambda count: count * TICK),
)
def test_it_forms_the_batches_of_the_gateway(
    gaps: list[float], weight: int, batch_rows: int, queue_rows: int, delay: float, base: float, slope: float
) -> None:
    limits = Limits(batch_rows, delay, max(batch_rows, queue_rows, weight))
    arrivals, now = [], 0.0
    for gap in gaps:
        now += gap
        arrivals.append(now)

    def seconds(size: int) -> float:
        return base + slope * size

    wanted, found = (each(arrivals, limits, weight, seconds) for each in (real, simulated))
    assert [batch for _, batch in found] == [batch for _, batch in wanted]
    assert [at for at, _ in found] == [at for at, _ in wanted]


def test_its_defaults_are_the_gateways() -> None:
    fields = Settings.model_fields
    assert fields["batch_rows"].default == BATCH_ROWS
    assert fields["batch_delay_ms"].default == 1000 * BATCH_DELAY
    assert fields["queue_rows"].default == QUEUE_ROWS


def test_a_batch_is_what_fits_and_a_full_queue_refuses() -> None:
    batcher = Batcher(Limits(batch_rows=12, batch_delay=0.002, queue_rows=20), weight=5)
    assert [batcher.offer(number, 0.0) for number in range(5)] == [True, True, True, True, False]
    assert batcher.due() == 0.0
    assert batcher.take() == [0, 1]
    assert batcher.take() == [2, 3]
    assert batcher.due() is None


def test_sparse_arrivals_are_not_made_to_wait() -> None:
    batcher = Batcher(Limits(batch_delay=0.002), weight=1)
    for number in range(20):
        batcher.offer(number, now=float(number))
        due = batcher.due()
        batcher.take()
    assert due == 19.0  # nobody comes within 2 ms: the last one goes out at once
    dense = Batcher(Limits(batch_delay=0.002), weight=1)
    for number in range(20):
        dense.offer(number, now=number / 10_000)
    assert dense.due() == pytest.approx(0.002)
