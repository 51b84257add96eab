"""Freed memory goes back to the system.

glibc keeps an arena per thread, and what many threads free in turn stays scattered over these.
"""

import asyncio
import ctypes
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["trimming"]

INTERVAL_S = 30.0


@asynccontextmanager
async def trimming(
    interval: float = INTERVAL_S, trim: Callable[[], object] | None = None
) -> AsyncIterator[None]:
    """Give freed memory back every `interval` seconds while the body runs. Without glibc, do nothing."""
    trim = trim or _malloc_trim()
    task = (
        None if trim is None else asyncio.get_running_loop().create_task(_repeat(trim, interval), name="trim")
    )
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _repeat(trim: Callable[[], object], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        await asyncio.to_thread(trim)


def _malloc_trim() -> Callable[[], object] | None:
    if not sys.platform.startswith("linux"):
        return None
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return None if found is None else lambda: found(0)
