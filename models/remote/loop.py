"""An event loop on a thread of its own, for blocking callers of asynchronous code."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopThread"]

R = TypeVar("R")


class LoopThread:
    """Runs from the first call on, until `close` or the end of the process; any thread may call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()  # two first calls at once would make two loops

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """The result of `coroutine`; blocks. Whatever it raises is raised here."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started()).result()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop

    def close(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
