"""The callers' side: admits images and has them judged by whichever scorer is free."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable

from app.admission import Admission, Closed, DeadlineExceeded
from app.context import request_id
from app.follower import StaleCalibration
from app.gateway import DeviceRequest, Judged, OutOfOrder
from app.replicas.scorer import OtherClassifier, Work

__all__ = ["Dispatcher", "Judge", "ScorerLost"]

log = logging.getLogger("triggerwall.dispatcher")

Judge = Callable[[Work], Awaitable[Judged | Exception]]
"""Asks one scorer; answers what it answered, or raises `ScorerLost` or `Overloaded` where it did not."""

TRIES = 3
PAUSE_S = 0.02  # before the second try; doubled before the third
POLL_S = 0.02


class ScorerLost(Exception):  # noqa: N818  (it names what happened)
    """Raised where the scorer that had the images ended without an answer: nobody has judged them."""

    retry_after = 1.0  # seconds


ASK_ANOTHER = (ScorerLost, OtherClassifier, StaleCalibration, OutOfOrder, Closed)
"""What one scorer cannot do and another may. Judging changes nothing, so asking twice does no harm."""


class Dispatcher(Admission[DeviceRequest, Judged]):
    """Sends each request's images to a scorer, which batches them with those of others."""

    def __init__(self, judge: Judge, classifier: str, *, max_waiting: int) -> None:
        """`classifier` is the digest of the one that the answers are given for."""
        super().__init__(max_waiting)
        self._judge, self._classifier = judge, classifier

    def start(self) -> None:
        """Nothing has to run here."""

    async def close(self) -> None:
        """Take no more, and wait until what was taken is answered; every request has a deadline."""
        self._closing = True
        while self.waiting:
            await asyncio.sleep(POLL_S)

    async def _enqueue(
        self, item: DeviceRequest, weight: int, flow: Hashable | None, deadline: float | None
    ) -> Judged:
        self.waiting += weight
        began = time.perf_counter()
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()) as limit:
                answer = await self._ask(item, str(flow), deadline)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded("the deadline passed before there was an answer") from error
        finally:
            self._release(weight)
        item.on_device.append((began, time.perf_counter()))
        return answer

    async def _ask(self, item: DeviceRequest, flow: str, deadline: float | None) -> Judged:
        for number in range(TRIES):
            asked = time.monotonic()
            left = math.inf if deadline is None else deadline - asked
            images = item.images.numpy()
            work = Work(self._classifier, images, item.full, flow, left, request_id.get())
            try:
                answer = await self._judge(work)
                if isinstance(answer, Exception):
                    raise answer
                calibration, mode, confirmed, outcomes = answer
                # From the arrival there, which was no earlier than this: at worst it seems older than it is.
                return calibration, mode, asked + confirmed, outcomes
            except ASK_ANOTHER as error:
                if number == TRIES - 1:
                    raise
                log.warning("asking another scorer: %s", error)
            await asyncio.sleep(PAUSE_S * 2**number)
        raise AssertionError("the last try returns or raises")
