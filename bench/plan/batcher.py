"""The gateway's micro-batcher, told the time instead of waiting for it.

What is stated here a second time is when a batch goes out, what goes with it and what is refused; cancelled
callers, deadlines and failing batches are the real batcher's alone. A test runs both on the same arrivals,
the real one on a virtual clock, and they form the same batches at the same times.
"""

from collections import deque
from dataclasses import dataclass

__all__ = ["BATCH_DELAY", "BATCH_ROWS", "QUEUE_ROWS", "Batcher", "Limits"]

MEMORY = 0.1  # how much the newest gap counts in the running mean
BATCH_ROWS, BATCH_DELAY, QUEUE_ROWS = 1024, 0.002, 16_384  # the gateway's defaults


@dataclass(frozen=True)
class Limits:
    """The gateway's settings `batch_rows`, `batch_delay_ms` (here in seconds) and `queue_rows`."""

    batch_rows: int = BATCH_ROWS
    batch_delay: float = BATCH_DELAY
    queue_rows: int = QUEUE_ROWS


class Batcher:
    """Requests of `weight` rows each, which are therefore served in the order of arrival."""

    def __init__(self, limits: Limits, weight: int) -> None:
        self.limits, self.weight = limits, weight
        self._queue: deque[tuple[int, float]] = deque()  # (request, arrival)
        self._last_arrival = -float("inf")
        self._gap = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, request: int, now: float) -> bool:
        """Queue `request`; False where the queue is full."""
        if (len(self._queue) + 1) * self.weight > self.limits.queue_rows:
            return False
        self._gap += MEMORY * (min(now - self._last_arrival, 2 * self.limits.batch_delay) - self._gap)
        self._last_arrival = now
        self._queue.append((request, now))
        return True

    def due(self) -> float | None:
        """When the next batch goes out should nothing more arrive and the device be free; None where nothing
        waits. A time in the past is: at once."""
        if not self._queue:
            return None
        oldest = self._queue[0][1]
        if len(self._queue) * self.weight >= self.limits.batch_rows:
            return oldest
        return oldest + (self.limits.batch_delay if self._gap < self.limits.batch_delay else 0.0)

    def take(self) -> list[int]:
        """The requests of the next batch: as many as fit, and at least one."""
        fit = max(1, self.limits.batch_rows // self.weight)
        return [self._queue.popleft()[0] for _ in range(min(fit, len(self._queue)))]
