"""Learning from traffic in monitor mode: a share of the images is measured when the device has time.

What is kept is evidence (`Reservoir`), in memory only: images are let go as soon as they are measured, and
a restart begins anew. Images that come while enough are waiting already are passed over, so the memory
held and the device's time are bounded whatever the traffic.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np
import torch
from torch import Tensor

from app.firewall import Firewall
from app.policy import Mode
from app.worker import Worker
from detectors.reservoir import Reservoir

__all__ = ["Learner"]

log = logging.getLogger("triggerwall.learner")

BATCH = 16  # images measured at once: one that arrives meanwhile waits no longer than for these
PATIENCE_S = 1.0  # under traffic without a pause a batch is measured this often
POLL_S = 0.02


class Learner:
    """Takes images that were judged, and fills the reservoir with what is measured of some of them."""

    def __init__(
        self,
        firewall: Firewall,
        worker: Worker,
        *,
        capacity: int,
        share: float,
        busy: Callable[[], bool],
        full: Callable[[], Awaitable[None]],
        elsewhere: Callable[[], int] = lambda: 0,
        seed: int = 0,
    ) -> None:
        """Measures a random `share` in (0, 1] of the images offered. `busy` tells whether images wait for
        the device; `full` is awaited when the reservoir has been filled, and, should it raise, again when as
        many images have been measured once more. What others measured `elsewhere` counts for that too."""
        self.firewall, self.worker, self.share = firewall, worker, share
        self.reservoir = Reservoir(capacity, seed)
        self._busy, self._full, self.elsewhere = busy, full, elsewhere
        self._random = np.random.default_rng(seed)
        self._waiting: deque[Tensor] = deque()
        self._offered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told, self._tell_at = False, capacity

    def start(self) -> None:
        """Begin to measure; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="learner")

    async def close(self) -> None:
        """Drop what waits, and stop after the batch under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def offer(self, images: Tensor) -> None:
        """Take a share of `images` (B, C, H, W), float32 in [0, 1], where monitor mode and room allow."""
        if self.firewall.mode is not Mode.MONITOR:
            return
        room = 2 * BATCH - len(self._waiting)
        chosen = np.flatnonzero(self._random.random(len(images)) < self.share)[: max(0, room)]
        # Clones: a view would keep the whole request in memory.
        self._waiting.extend(images[row].clone() for row in chosen)
        if self._waiting:
            self._offered.set()

    async def _serve(self) -> None:
        while True:
            await self._offered.wait()
            await self._idle()
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            if not self._waiting:
                self._offered.clear()
            try:
                self.reservoir.add(await self.worker.run(self.firewall.measure, torch.stack(batch)))
            except Exception:  # learning must not end with one bad batch, nor disturb anybody
                log.exception("a batch of traffic could not be learnt from")
            await self._tell_when_full()

    async def _tell_when_full(self) -> None:
        measured = self.reservoir.seen + self.elsewhere()
        if self._told or measured < self._tell_at:
            return
        try:
            await self._full()
            self._told = True
        except Exception:  # more traffic may do better
            self._tell_at = measured + self.reservoir.capacity
            log.exception("what was learnt cannot be used; tried again at %d images", self._tell_at)

    async def _idle(self) -> None:
        """Wait until no image waits for the device, but not for ever."""
        for _ in range(round(PATIENCE_S / POLL_S)):
            if not self._busy():
                return
            await asyncio.sleep(POLL_S)
