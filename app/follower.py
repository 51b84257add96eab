"""Gateways that share a database enforce the same calibration, and none an older one than a stated bound.

Each asks the database, several times within the bound, which calibration is active, and enforces that; where
the database gives hints that it changed, at once. One that could not ask for longer is not ready, and judges
nothing, until it can again: the others may have rolled back what it still enforces.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from app.storage.errors import StoreError
from app.storage.hints import Hints

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
        hints: Hints | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`follow` enforces what is active now, or raises `StoreError`. `lag` is the bound in seconds; it is
        enforced where `bounded`, that is where others use the same database."""
        self._follow, self.lag, self._bounded, self._clock = follow, lag, bounded, clock
        self._hints, self._hinted = hints, asyncio.Event()
        self._confirmed = clock()  # when what is enforced was last known to be what is active
        self._failing = False
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Enforce what is active, and begin to ask. Raises `StoreError`."""
        asked = self._clock()
        await self._follow()
        self._confirmed = asked
        self._tasks = [asyncio.create_task(self._serve(), name="follower")]
        if self._hints is not None:
            self._tasks.append(asyncio.create_task(self._listen(self._hints), name="hints"))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def age(self) -> float:
        """Seconds since what is enforced was last known to be what is active."""
        return self._clock() - self._confirmed

    def require_fresh(self) -> float:
        """When what is enforced was last known to be what is active, for `require_recent`. Raises
        `StaleCalibration` where that is longer ago than the bound."""
        confirmed = self._confirmed
        self.require_recent(confirmed)
        return confirmed

    def require_recent(self, confirmed: float) -> None:
        """Raises `StaleCalibration` where what was known to be active at `confirmed` may by now have been
        replaced for longer than the bound."""
        age = self._clock() - confirmed
        if self._bounded and self._tasks and age > self.lag:
            raise StaleCalibration(
                f"the database has not said for {age:.0f} s that this calibration is active; the most is "
                f"{self.lag:g} s (calibration_lag_s): nothing is judged until it does"
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hinted.wait(), self.lag / ASKS)
            self._hinted.clear()
            await self.ask()

    async def _listen(self, hints: Hints) -> None:
        """Without hints it only takes longer, so that what raises is no more than noted."""
        while True:
            try:
                async for _ in hints():
                    self._hinted.set()
            except StoreError as error:
                log.info("%s", error)
            except Exception:
                log.exception("hints could not be listened for")
            await asyncio.sleep(self.lag / ASKS)
