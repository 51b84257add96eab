"""A generic asyncio micro-batcher: items that arrive together share one call of the work function.

It knows nothing of what the items are, only how heavy each is, whose it is and when it is due.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from app.admission import Admission, BatcherError, Closed, DeadlineExceeded, Overloaded, Ticket
from app.fair_queue import FairQueue
from app.pace import Pace

__all__ = ["BatchFigures", "Batcher", "BatcherError", "Closed", "DeadlineExceeded", "Overloaded", "Ticket"]

log = logging.getLogger("triggerwall.batcher")

T = TypeVar("T")
R = TypeVar("R")

MEMORY = 0.1  # how much the newest observation counts in a running mean


@dataclass(frozen=True)
class BatchFigures:
    """One batch as it is handed to the work function: its weight, the seconds each item waited, and
    whether it is a part of a batch that failed as a whole."""

    weight: int
    waited: tuple[float, ...]
    retried: bool = False


@dataclass(slots=True, eq=False)
class _Place(Generic[T, R]):
    item: T | None  # None once its caller has gone: a place stays in the queue until its turn
    weight: int
    answer: "asyncio.Future[R]"
    arrived: float
    deadline: float | None

    def late(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline


class Batcher(Admission[T, R]):
    """Gathers items into batches and gives each caller the result of its own item.

    `work` takes the items of a batch and answers as many results in the same order; `run` awaits it
    wherever it belongs (a worker thread). A batch goes out when it weighs `max_weight`, or what `adapts`
    finds enough; or when its oldest item has waited `max_delay` seconds, or at once where recent arrivals
    were so far apart that nobody can be expected within it; or, if the work function is busy by then, as
    soon as it is free.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        run: Callable[[Callable[[Sequence[T]], Sequence[R]], Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_weight: int,
        max_delay: float,
        max_waiting: int,
        adapts: bool = False,
        lanes: int = 1,
        observe: Callable[[BatchFigures], None] = lambda _: None,
        nobodys_fault: tuple[type[Exception], ...] = (),
    ) -> None:
        """`adapts`: learn how heavy a batch has to be for the work function to be fast, and take no heavier
        ones (`app.pace`). `lanes`: so many batches may be worked at once. `nobodys_fault`: exceptions that no
        item brought about; they reach the whole batch at once, and are not looked for item by item."""
        super().__init__(max_waiting)
        self._work, self._run, self._observe = work, run, observe
        self._nobodys_fault = nobodys_fault
        self.max_weight, self.max_delay, self.lanes = max_weight, max_delay, lanes
        self._pace = Pace(max_weight) if adapts else None
        self._queued = 0  # weight in the queue
        self._queue: FairQueue[_Place[T, R]] = FairQueue()
        self._oldest: dict[_Place[T, R], None] = {}  # the queue in order of arrival
        self._changed = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._last_arrival = -float("inf")
        self._gap = 0.0  # seconds between arrivals, running mean
        self._seconds_per_weight: float | None = None

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._serve(), name="batcher")

    async def close(self) -> None:
        """Take no more items, answer all that were taken, and stop."""
        self._closing = True
        self._changed.set()
        if self._loop is not None:
            await self._loop

    # --- the caller's side ------------------------------------------------------------------------

    def expected_wait(self) -> float:
        """Seconds until what is waiting now will have been worked off, at the measured speed."""
        return self.waiting * (self._seconds_per_weight or 0.0) / self.lanes

    async def _enqueue(self, item: T, weight: int, flow: Hashable | None, deadline: float | None) -> R:
        now = time.monotonic()
        self._gap += MEMORY * (min(now - self._last_arrival, 2 * self.max_delay) - self._gap)
        self._last_arrival = now
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        place = _Place(item, weight, answer, now, deadline)
        self._queue.push(place, weight, flow)
        self._oldest[place] = None
        self.waiting += weight
        self._queued += weight
        self._changed.set()
        try:
            async with asyncio.timeout(None if deadline is None else deadline - now) as limit:
                return await answer
        except TimeoutError as error:
            if not limit.expired():
                raise  # the work function's own
            raise DeadlineExceeded("the deadline passed before there was an answer") from error
        finally:
            self._leave(place)
            place.item = None

    def _leave(self, place: _Place[T, R]) -> None:
        """Free the place of a caller that went while it waited; the queue drops it when it comes up."""
        if place in self._oldest:
            del self._oldest[place]
            self._queued -= place.weight
            self._release(place.weight)

    def _release(self, weight: int) -> None:
        super()._release(weight)
        self._changed.set()

    # --- the device's side ------------------------------------------------------------------------

    async def _serve(self) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while await self._batch_is_due():
            batch = self._take()
            if self.lanes == 1:
                await self._work_off(batch)
                continue
            under_way.add(asyncio.get_running_loop().create_task(self._work_off(batch)))
            if len(under_way) == self.lanes:
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        if under_way:
            await asyncio.wait(under_way)

    async def _work_off(self, batch: Sequence[_Place[T, R]]) -> None:
        try:
            await self._answer(batch)
        except Exception as error:  # a fault of ours: these get it, and the next ones are served
            log.exception("a batch could not be handled")
            for place in batch:
                if not place.answer.done():
                    place.answer.set_exception(error)

    async def _batch_is_due(self) -> bool:
        """Wait until a batch should go out; False when closing and nothing is left."""
        while True:
            if not self._oldest:
                if self._closing and self.waiting == 0:  # what was admitted is still answered
                    return False
                await self._change(None)
                continue
            oldest = next(iter(self._oldest))
            left = oldest.arrived + self._delay() - time.monotonic()
            if self._queued >= self.enough or left <= 0 or self._closing:
                return True
            await self._change(left)

    @property
    def enough(self) -> int:
        """The weight from which on a batch waits for nobody."""
        return self.max_weight if self._pace is None else self._pace.limit

    def _delay(self) -> float:
        """Seconds worth waiting for batch-mates: none where they seldom come that soon."""
        return self.max_delay if self._gap < self.max_delay else 0.0

    async def _change(self, timeout: float | None) -> None:
        """Wait for an arrival or for `timeout` seconds, whichever is first."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _take(self) -> list[_Place[T, R]]:
        """The next items that fit into one batch; one that is too heavy for any goes alone."""
        batch: list[_Place[T, R]] = []
        weight = 0
        most = self.max_weight if self._pace is None else self._pace.choose(self._queued)
        while self._queue:
            place = self._queue.peek()
            if place in self._oldest and batch and weight + place.weight > most:
                break
            self._queue.pop()
            if place in self._oldest:  # else its caller has gone
                self._leave(place)
                batch.append(place)
                weight += place.weight
        return batch

    async def _answer(self, batch: Sequence[_Place[T, R]], retried: bool = False) -> None:
        """Run `batch` and answer its callers. Where it fails, halve it until the fault stands alone."""
        now = time.monotonic()
        wanted = [place for place in batch if not place.answer.done() and not place.late(now)]
        if not wanted:
            return
        weight = sum(place.weight for place in wanted)
        self._observe(BatchFigures(weight, tuple(now - place.arrived for place in wanted), retried))
        try:
            results = await self._run(self._work, [cast(T, place.item) for place in wanted])
            if len(results) != len(wanted):
                raise RuntimeError(f"{len(results)} results for {len(wanted)} items")
        except Exception as error:
            await self._isolate(wanted, error)
        else:
            self._learn_speed(weight, time.monotonic() - now)
            for place, result in zip(wanted, results, strict=True):
                if not place.answer.done():
                    place.answer.set_result(result)

    def _learn_speed(self, weight: int, seconds: float) -> None:
        if self._pace is not None:
            self._pace.learn(weight, seconds)
        known, seconds_per_weight = self._seconds_per_weight, seconds / weight
        self._seconds_per_weight = (
            seconds_per_weight if known is None else known + MEMORY * (seconds_per_weight - known)
        )

    async def _isolate(self, failed: Sequence[_Place[T, R]], error: Exception) -> None:
        if len(failed) > 1 and not isinstance(error, self._nobodys_fault):
            middle = len(failed) // 2
            await self._answer(failed[:middle], retried=True)
            await self._answer(failed[middle:], retried=True)
            return
        for place in failed:
            if not place.answer.done():
                place.answer.set_exception(error)
