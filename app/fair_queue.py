"""Who is next: self-clocked fair queueing (Golestani, INFOCOM 1994, section III).

Every item gets a finish tag, F = max(V, F of the flow's previous item) + weight, and the smallest tag is
next; V, the virtual time, is the tag of the item taken last. A light item overtakes a heavy one that came
shortly before it, and a flow that sends much waits behind its own items, not in front of other people's.
Nobody starves: V grows with all that is taken, so only a bounded weight can overtake any one item.
"""

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue of weighted items from flows. An item without a flow is a flow of its own."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable, T]] = []
        self._arrival = itertools.count()
        self._virtual_time = 0.0
        self._last: dict[Hashable, float] = {}  # the tag of each flow's latest item still waiting

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, item: T, weight: float, flow: Hashable | None = None) -> None:
        number = next(self._arrival)  # equal tags are served in the order of arrival
        tag = max(self._virtual_time, self._last.get(flow, 0.0)) + weight
        if flow is not None:
            self._last[flow] = tag
        heapq.heappush(self._heap, (tag, number, flow, item))

    def peek(self) -> T:
        """The item that `pop` would take. Raises `IndexError` where there is none."""
        return self._heap[0][3]

    def pop(self) -> T:
        """Take the next item. Raises `IndexError` where there is none."""
        tag, _, flow, item = heapq.heappop(self._heap)
        self._virtual_time = tag
        if self._last.get(flow) == tag:
            del self._last[flow]  # its tag is the virtual time now, and says no more than that
        if not self._heap:
            self._virtual_time = 0.0  # nobody waits: start over, so that tags stay small and exact
            self._last.clear()
        return item
