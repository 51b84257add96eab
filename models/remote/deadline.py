"""When the answer to the call under way is due, told past the detectors, who need not know of it."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["due", "time_left"]

_DUE: ContextVar[float] = ContextVar("due", default=math.inf)


@contextmanager
def due(at: float) -> Iterator[None]:
    """Within the block, calls to a remote classifier end by `at`, seconds of `time.monotonic`."""
    token = _DUE.set(at)
    try:
        yield
    finally:
        _DUE.reset(token)


def time_left() -> float:
    """Seconds until then; infinite where nobody said."""
    return _DUE.get() - time.monotonic()
