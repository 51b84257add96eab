"""How much a caller may ask: one token bucket each, filled by the second, emptied by the image.

An image costs the same forward passes whoever sends it, so images are the measure of work.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Quota", "RateLimited"]

MOST_CALLERS = 10_000  # buckets in memory; beyond, the one not used for longest is forgotten


class RateLimited(Exception):  # noqa: N818  (it names the caller's state)
    """Raised where a caller has asked too much; `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("your quota of images is used up; send fewer, or try again later")
        self.retry_after = retry_after


class Quota:
    """`rate` images a second for every caller, and `burst` at once after a pause."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # balance, and when it was so

    def charge(self, caller: str, images: int) -> None:
        """Take `images` from the caller's bucket. Raises `RateLimited`, and takes nothing, below one image.

        A request larger than what is left is let in whole and paid back later (the balance turns
        negative): refusing it would only have it sent again.
        """
        now = self._clock()
        balance = self._balance(caller, now)
        if balance < 1:
            raise RateLimited((1 - balance) / self.rate)
        self._keep(caller, balance - images, now)

    def charge_more(self, caller: str, images: int) -> None:
        """Take `images` from the bucket of a caller who was let in already."""
        now = self._clock()
        self._keep(caller, self._balance(caller, now) - images, now)

    def _balance(self, caller: str, now: float) -> float:
        balance, then = self._buckets.get(caller, (self.burst, now))
        return min(self.burst, balance + (now - then) * self.rate)

    def _keep(self, caller: str, balance: float, now: float) -> None:
        self._buckets[caller] = (balance, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
