"""A generic asyncio micro-batcher: items that arrive together share one call of the work function.

It knows nothing of what the items are, only how heavy each is.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["BatchFigures", "Batcher", "Closed", "Overloaded"]

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):  # noqa: N818  (it names the state)
    """Raised at once when so much is waiting that one more item would only wait in vain."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too much is waiting for the device; try again shortly")
        self.retry_after = retry_after  # seconds


class Closed(Exception):  # noqa: N818
    """Raised for an item that arrives after the batcher began to close."""


@dataclass(frozen=True)
class BatchFigures:
    """One batch as it is handed to the work function: its weight, and the seconds each item waited."""

    weight: int
    waited: tuple[float, ...]


@dataclass(slots=True, eq=False)
class _Place(Generic[T, R]):
    item: T
    weight: int
    answer: "asyncio.Future[R]"
    arrived: float


class Batcher(Generic[T, R]):
    """Gathers items into batches and gives each caller the result of its own item.

    `work` takes the items of a batch and answers as many results in the same order; `run` awaits it
    wherever it belongs (a worker thread). A batch goes out when it weighs `max_weight`, when its oldest
    item has waited `max_delay` seconds, or, if the work function is busy by then, as soon as it is free.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        run: Callable[[Callable[[Sequence[T]], Sequence[R]], Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_weight: int,
        max_delay: float,
        max_waiting: int,
        observe: Callable[[BatchFigures], None] = lambda _: None,
    ) -> None:
        self._work, self._run, self._observe = work, run, observe
        self.max_weight, self.max_delay, self.max_waiting = max_weight, max_delay, max_waiting
        self.waiting = 0  # weight in the queue
        self._queue: deque[_Place[T, R]] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work; needs a running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._serve(), name="batcher")

    async def close(self) -> None:
        """Take no more items, answer all that were taken, and stop."""
        self._closing = True
        self._changed.set()
        if self._loop is not None:
            await self._loop

    def admit(self, weight: int) -> None:
        """Raise `Overloaded` or `Closed` where an item of `weight` could not be taken now."""
        if self._closing:
            raise Closed("shutting down")
        if self.waiting + weight > self.max_waiting:
            raise Overloaded(retry_after=1.0)

    async def submit(self, item: T, weight: int = 1) -> R:
        """The result of `item`. An exception of the work function reaches the items at fault only.

        Raises `Overloaded` at once where the queue is full, and `Closed` while shutting down. A caller
        that is cancelled gives its place up and disturbs nobody.
        """
        self.admit(weight)
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        place = _Place(item, weight, answer, time.perf_counter())
        self._queue.append(place)
        self.waiting += weight
        self._changed.set()
        try:
            return await answer
        finally:
            self._leave(place)

    def _leave(self, place: _Place[T, R]) -> None:
        """Free the place of a caller that was cancelled while it waited."""
        if place.answer.cancelled() and place in self._queue:
            self._queue.remove(place)
            self.waiting -= place.weight

    async def _serve(self) -> None:
        while await self._batch_is_due():
            await self._answer(self._take())

    async def _batch_is_due(self) -> bool:
        """Wait until a batch should go out; False when closing and nothing is left."""
        while True:
            if not self._queue:
                if self._closing:
                    return False
                await self._change(None)
                continue
            left = self._queue[0].arrived + self.max_delay - time.perf_counter()
            if self.waiting >= self.max_weight or left <= 0 or self._closing:
                return True
            await self._change(left)

    async def _change(self, timeout: float | None) -> None:
        """Wait for an arrival or for `timeout` seconds, whichever is first."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), timeout)

    def _take(self) -> list[_Place[T, R]]:
        """The oldest items that fit into one batch; one that is too heavy for any goes alone."""
        batch = [self._queue.popleft()]
        weight = batch[0].weight
        while self._queue and weight + self._queue[0].weight <= self.max_weight:
            batch.append(self._queue.popleft())
            weight += batch[-1].weight
        self.waiting -= weight
        now = time.perf_counter()
        self._observe(BatchFigures(weight, tuple(now - place.arrived for place in batch)))
        return batch

    async def _answer(self, batch: Sequence[_Place[T, R]]) -> None:
        """Run `batch` and answer its callers. Where it fails, halve it until the fault stands alone."""
        wanted = [place for place in batch if not place.answer.done()]
        if not wanted:
            return
        try:
            results = await self._run(self._work, [place.item for place in wanted])
            if len(results) != len(wanted):
                raise RuntimeError(f"{len(results)} results for {len(wanted)} items")
        except Exception as error:
            await self._isolate(wanted, error)
        else:
            for place, result in zip(wanted, results, strict=True):
                if not place.answer.done():
                    place.answer.set_result(result)

    async def _isolate(self, failed: Sequence[_Place[T, R]], error: Exception) -> None:
        if len(failed) > 1:
            middle = len(failed) // 2
            await self._answer(failed[:middle])
            await self._answer(failed[middle:])
        elif not failed[0].answer.done():
            failed[0].answer.set_exception(error)
