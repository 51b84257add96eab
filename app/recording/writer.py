"""A thread that takes what is offered in batches, so that whoever offers never waits.

What waits is bounded by number and bytes: more is refused, and the one who offers counts it.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from app.storage.errors import StoreError

__all__ = ["BackgroundWriter"]

log = logging.getLogger("triggerwall.recording")

T = TypeVar("T")
RETRY_S = 1.0


class BackgroundWriter(Generic[T]):
    """Calls `write` with what was offered since the last time, at most `every` seconds later.

    Where `write` raises `StoreError` it is called with the same batch again, every second, until it
    succeeds; meanwhile nothing else is taken, and the queue fills up to its bounds. `lost` is told of a
    batch that cannot be written: at the end, or where `write` raises anything else.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], None],
        lost: Callable[[Sequence[T], Exception], None],
        *,
        every: float,
        capacity: int,
        max_bytes: int,
    ) -> None:
        self._write, self._lost, self._every = write, lost, every
        self._capacity, self._max_bytes = capacity, max_bytes
        self._queue: deque[tuple[T, int, int]] = deque()
        self._count = self._bytes = 0
        self._lock = threading.Lock()
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """How much waits, by number; without what is being written."""
        return self._count

    def offer(self, item: T, count: int, size: int) -> bool:
        """Take `item`, which counts as `count` and holds `size` bytes; False where there is no room."""
        with self._lock:
            if self._count + count > self._capacity or self._bytes + size > self._max_bytes:
                return False
            self._queue.append((item, count, size))
            self._count, self._bytes = self._count + count, self._bytes + size
            filling = self._count > self._capacity / 2 or self._bytes > self._max_bytes / 2
        if filling:
            self._wake.set()
        return True

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float = 30.0) -> None:
        """Write what waits, then end the thread. Blocks, for `timeout` seconds at most."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._every)
            self._wake.clear()
            self._flush(self._take())
        self._flush(self._take())

    def _take(self) -> list[T]:
        with self._lock:
            batch = [item for item, _, _ in self._queue]
            self._queue.clear()
            self._count = self._bytes = 0
        return batch

    def _flush(self, batch: Sequence[T]) -> None:
        while batch:
            try:
                self._write(batch)
                return
            except StoreError as error:
                log.warning("%s; trying again", error)
                if self._stopping.wait(RETRY_S):
                    self._last_try(batch)
                    return
            except Exception as error:  # one bad batch must not end the thread
                log.exception("a batch could not be written")
                self._lost(batch, error)
                return

    def _last_try(self, batch: Sequence[T]) -> None:
        try:
            self._write(batch)
        except Exception as error:
            log.error("lost at the end: %s", error)
            self._lost(batch, error)
