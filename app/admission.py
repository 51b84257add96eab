"""Who is let wait for the device, and what is said to the others.

It knows nothing of what the items are, only how heavy each is, whose it is and when it is due. Where they
wait, and who works them off, is somebody else's: `app.batcher` here, `app.replicas.dispatcher` elsewhere.

BatcherError
 ├─ Overloaded        so much is waiting that one more would wait in vain   (before anything is queued)
 ├─ Closed            it is shutting down                                   (before anything is queued)
 └─ DeadlineExceeded  the answer would come too late                        (in the queue, or at the device)
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Admission", "BatcherError", "Closed", "DeadlineExceeded", "Overloaded", "Ticket"]

T = TypeVar("T")
R = TypeVar("R")

LEAST_RETRY_AFTER_S, MOST_RETRY_AFTER_S = 1.0, 60.0


class BatcherError(Exception):
    """Base of what a caller gets instead of a result though its item is not at fault."""


class Overloaded(BatcherError):  # noqa: N818  (these name states)
    """Raised at once when so much is waiting that one more item would only wait in vain."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("too much is waiting for the device; try again shortly")
        self.retry_after = retry_after  # seconds


class Closed(BatcherError):  # noqa: N818
    """Raised for an item that arrives after the batcher began to close."""


class DeadlineExceeded(BatcherError):  # noqa: N818
    """Raised at an item's deadline; no work is begun for it afterwards."""


class Ticket(Generic[T, R]):
    """Room in the queue, held while an item is prepared (decoded), so that what was admitted is bounded
    however slow the preparation is. Used as a context manager; what is not used is given back."""

    def __init__(self, admission: "Admission[T, R]", weight: int) -> None:
        self._admission, self._held = admission, weight

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._give_back()

    def _give_back(self) -> None:
        self._admission._release(self._held)
        self._held = 0

    async def submit(
        self,
        item: T,
        weight: int | None = None,
        *,
        flow: Hashable | None = None,
        deadline: float | None = None,
    ) -> R:
        """As `Admission.submit`, with the room already held; `weight` where it is less than was admitted."""
        weight = self._held if weight is None else weight
        self._give_back()
        return await self._admission._enqueue(item, weight, flow, deadline)


class Admission(ABC, Generic[T, R]):
    """Takes items as long as there is room for their weight."""

    def __init__(self, max_waiting: int) -> None:
        """`max_waiting`: the weight that may be queued or admitted at once."""
        self.max_waiting = max_waiting
        self.waiting = 0  # weight that is queued or admitted
        self._closing = False

    @abstractmethod
    def start(self) -> None:
        """Begin to work; needs a running event loop."""

    @abstractmethod
    async def close(self) -> None:
        """Take no more items, answer all that were taken, and stop."""

    @abstractmethod
    async def _enqueue(self, item: T, weight: int, flow: Hashable | None, deadline: float | None) -> R:
        """The result of an item that was admitted. `waiting` counts it until work on it begins."""

    def admit(self, weight: int, deadline: float | None = None) -> Ticket[T, R]:
        """Hold room for an item of `weight` while it is prepared.

        Raises `Closed`; and `Overloaded` at once where the queue is full, or where so much is waiting that
        `deadline` (seconds of `time.monotonic`) would pass first.
        """
        if self._closing:
            raise Closed("shutting down")
        wait = self.expected_wait()
        too_late = deadline is not None and time.monotonic() + wait >= deadline
        if self.waiting + weight > self.max_waiting or too_late:
            raise Overloaded(min(max(wait, LEAST_RETRY_AFTER_S), MOST_RETRY_AFTER_S))
        self.waiting += weight
        return Ticket(self, weight)

    def expected_wait(self) -> float:
        """Seconds until what is waiting now will have been worked off; 0 where that is not known."""
        return 0.0

    async def submit(
        self, item: T, weight: int = 1, *, flow: Hashable | None = None, deadline: float | None = None
    ) -> R:
        """The result of `item`. An exception of the work function reaches the items at fault only.

        Items of one `flow` queue up behind each other; different flows get equal shares. Raises what
        `admit` raises, and `DeadlineExceeded` at `deadline` (seconds of `time.monotonic`). A caller that
        is cancelled gives its place up and disturbs nobody.
        """
        with self.admit(weight, deadline) as ticket:
            return await ticket.submit(item, flow=flow, deadline=deadline)

    def _release(self, weight: int) -> None:
        self.waiting -= weight
