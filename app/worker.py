"""The one thread that owns the device, so that blocking work never holds up the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["Worker"]

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """Runs functions one after another on a single thread, in the order in which they were given."""

    def __init__(self, name: str = "device") -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._began: float | None = None  # when the call under way began

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await `function(*args, **kwargs)`, run on the thread. Whatever it raises is raised here.

        A caller cancelled before its turn takes its function out of the line; once started it runs to
        its end, unheard.
        """

        def timed() -> R:
            self._began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._began = None

        return await asyncio.wrap_future(self._executor.submit(timed))

    def alive(self) -> None:
        """The call under way, on whatever threads, gives a sign of life: `busy_for` begins anew."""
        if self._began is not None:
            self._began = time.monotonic()

    def busy_for(self) -> float:
        """Seconds since the call under way began or last gave a sign of life; 0 between calls."""
        began = self._began  # read once: the thread may end the call meanwhile
        return 0.0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Finish what was given, then end the thread. Blocks."""
        self._executor.shutdown(wait=True)
