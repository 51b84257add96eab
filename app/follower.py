"""Gateways that share a database enforce the same calibration, and none an older one than a stated bound.

Each asks the database, several times within the bound, which calibration is active, and enforces that. One
that could not ask for longer is not ready, and judges nothing, until it can again: the others may have
rolled back what it still enforces.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from app.storage.errors import StoreError

__all__ = ["Follower", "StaleCalibration"]

log = logging.getLogger("triggerwall.follower")

ASKS = 5  # within the bound, so that one slow answer is no outage


class StaleCalibration(Exception):  # noqa: N818  (it names the state)
    """Raised where the calibration enforced may be older than it is allowed to be."""

    retry_after = 1.0  # seconds


class Follower:
    """Keeps asking what is active. Any thread may call `require_fresh`."""

    def __init__(
        self,
        follow: Callable[[], Awaitable[None]],
        *,
        lag: float,
        bounded: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`follow` enforces what is active now, or raises `StoreError`. `lag` is the bound in seconds; it is
        enforced where `bounded`, that is where others use the same database."""
        self._follow, self.lag, self._bounded, self._clock = follow, lag, bounded, clock
        self._confirmed = clock()  # when what is enforced was last known to be what is active
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask; what is active has just been restored. Needs a running event loop."""
        self._confirmed = self._clock()
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="follower")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def require_fresh(self) -> None:
        """Raises `StaleCalibration` where the database did not answer for longer than the bound."""
        age = self._clock() - self._confirmed
        if self._bounded and self._task is not None and age > self.lag:
            raise StaleCalibration(
                f"the database has not said for {age:.0f} s which calibration is active; the most is "
                f"{self.lag:g} s (calibration_lag_s): nothing is judged until it answers"
            )

    async def ask(self) -> None:
        """Ask once. What raises is logged: the next time may do better."""
        asked = self._clock()  # it was so then, whenever the answer comes
        try:
            await self._follow()
        except StoreError as error:
            if not self._failing:  # once, not with every try
                log.error("it cannot be told which calibration is active: %s", error)
            self._failing = True
        except Exception:
            log.exception("the active calibration could not be followed")
        else:
            if self._failing:
                log.warning("the database answers again")
            self._failing, self._confirmed = False, asked

    async def _serve(self) -> None:
        while True:
            await asyncio.sleep(self.lag / ASKS)
            await self.ask()
