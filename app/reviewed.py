"""What reviewers said of quarantined images flows back: false alarms into the next calibration, triggers into
a regression set that every new calibration is scored on."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from app.calibrator import BenignImage
from app.decoding import DecodePool
from app.firewall import Firewall, Guard
from app.images import ImageError
from app.storage.blobs import Blobs
from app.storage.quarantine import Held, Mark, QuarantineStore
from app.worker import Worker

__all__ = ["Reviewed"]

MOST = 2000  # images of either kind, those judged last
AT_ONCE = 32  # images scored together: traffic waits no longer than for these
MOST_NAMED = 100


class Reviewed:
    """The marked images of the quarantine, as images."""

    def __init__(
        self,
        quarantine: QuarantineStore,
        blobs: Blobs,
        firewall: Firewall,
        worker: Worker,
        decoders: DecodePool,
    ) -> None:
        self._quarantine, self._blobs = quarantine, blobs
        self._firewall, self._worker, self._decoders = firewall, worker, decoders

    def false_alarms(self) -> tuple[Iterator[BenignImage], int]:
        """The images marked as false alarms, read one by one, and about how many they are. Blocking.

        Such an image was rejected although it is what it was predicted as, so its label is that prediction.
        Raises `StoreError`."""
        held = self._quarantine.marked(Mark.FALSE_ALARM, MOST)
        images = (
            BenignImage(f"false alarm {each.sha256[:12]}", each.label, data)
            for each in held
            if (data := self._blobs.get(each.sha256)) is not None
        )
        return images, len(held)

    async def regression(self, guard: Guard) -> dict[str, Any] | None:
        """How many of the images marked as triggers `guard` stops, as JSON; None where none is marked.

        Raises `StoreError`."""
        held = await asyncio.to_thread(self._quarantine.marked, Mark.TRIGGER, MOST)
        if not held:
            return None
        stopped: list[bool] = []
        by_detector = {watch.detector: 0 for watch in guard.watches}
        names: list[str] = []
        for start in range(0, len(held), AT_ONCE):
            some = held[start : start + AT_ONCE]
            readable, images = await self._decoded(some)
            if images is None:
                continue
            names += readable
            for inspection in await self._worker.run(self._firewall.judge, guard, images):
                stopped.append(any(found.suspicious for found in inspection.detections))
                for found in inspection.detections:
                    by_detector[found.detector] += found.suspicious
        missed = [name for name, was in zip(names, stopped, strict=True) if not was]
        return {
            "images": len(stopped),
            "stopped": sum(stopped),
            "unreadable": len(held) - len(stopped),
            "detectors": by_detector,
            "missed": missed[:MOST_NAMED],
        }

    async def _decoded(self, held: Sequence[Held]) -> tuple[list[str], torch.Tensor | None]:
        """The names and pixels (B, C, H, W) of those of `held` that are there and can be read."""
        files = await asyncio.to_thread(lambda: [self._blobs.get(each.sha256) for each in held])
        there = [(each.sha256, data) for each, data in zip(held, files, strict=True) if data is not None]
        decoded = await self._decoders.decode([data for _, data in there])
        good = [
            (name, pixels)
            for (name, _), pixels in zip(there, decoded, strict=True)
            if not isinstance(pixels, ImageError)
        ]
        if not good:
            return [], None
        return [name for name, _ in good], torch.from_numpy(np.stack([pixels for _, pixels in good]))
