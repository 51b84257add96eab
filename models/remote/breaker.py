"""A circuit breaker: who fails again and again is left alone for a while (Nygard, Release It!, 2007)."""

import time
from collections.abc import Callable

from models.errors import UpstreamUnavailable

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Closed until `failures` attempts in a row have failed, then open for `rest` seconds; after that one
    call at a time is let through, until one succeeds. Used from one thread."""

    def __init__(self, failures: int, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures, self.rest, self._clock = failures, rest, clock
        self._failed = 0
        self._closes_at: float | None = None  # when the next trial may be made; None while closed

    @property
    def is_open(self) -> bool:
        return self._closes_at is not None

    def admit(self) -> None:
        """Let a call begin. Raises `UpstreamUnavailable` while open, at once."""
        now = self._clock()
        if self._closes_at is None:
            return
        if now < self._closes_at:
            raise UpstreamUnavailable(
                "the classifier behind this gateway has failed repeatedly and is left alone for a while",
                self._closes_at - now,
            )
        self._closes_at = now + self.rest  # this call is the trial; all others keep waiting

    def succeeded(self) -> None:
        self._failed, self._closes_at = 0, None

    def failed(self) -> None:
        self._failed += 1
        if self._failed >= self.failures:
            self._closes_at = self._clock() + self.rest
