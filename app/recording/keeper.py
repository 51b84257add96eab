"""Puts rejected images, and a sample of accepted ones, into quarantine: off the path of the images.

A place that is full, missing or read-only costs the images that come meanwhile, which are counted; it
never costs a decision.
"""

import logging
import random
from collections.abc import Sequence

from app.metrics import Metrics
from app.policy import Verdict
from app.recording.images import as_file, media_type
from app.recording.recorder import Kept
from app.recording.writer import BackgroundWriter
from app.storage.blobs import BlobError, Blobs
from app.storage.quarantine import Arrival, QuarantineStore

__all__ = ["Keeper"]

log = logging.getLogger("triggerwall.quarantine")

EVERY_S = 0.2
CAPACITY = 10_000  # images that wait


class Keeper:
    """Takes decided images and keeps those that somebody should look at."""

    def __init__(
        self,
        store: QuarantineStore,
        blobs: Blobs,
        metrics: Metrics,
        *,
        sample: float,
        max_bytes: int,
        max_waiting_bytes: int,
    ) -> None:
        """`sample` of the accepted images are kept too. No image larger than `max_bytes` is."""
        self._store, self._blobs, self._metrics = store, blobs, metrics
        self._sample, self._max_bytes = sample, max_bytes
        self._random = random.Random()
        self._writer = BackgroundWriter(
            "quarantine",
            self._write,
            lambda batch, _: self._drop(len(batch), "store_failed"),
            every=EVERY_S,
            capacity=CAPACITY,
            max_bytes=max_waiting_bytes,
        )
        self.dropped = 0
        self.problem: str | None = None

    def start(self) -> None:
        self._writer.start()

    def close(self) -> None:
        """Keep what waits. Blocks."""
        self._writer.close()

    def offer(self, decided: Sequence[Kept]) -> None:
        """Queue those of `decided` that are wanted. What no detector looked at is suspected of nothing."""
        for each in decided:
            if each.decision.detections and self._wanted(each.decision.verdict):
                size = len(each.image) if isinstance(each.image, bytes) else each.image.nbytes
                if not self._writer.offer(each, 1, size):
                    self._drop(1, "queue_full")

    def _wanted(self, verdict: Verdict) -> bool:
        return verdict is not Verdict.ACCEPTED or self._random.random() < self._sample

    def _write(self, batch: Sequence[Kept]) -> None:
        known = self._store.known([each.decision.image_sha256 for each in batch])
        arrivals = []
        for each in batch:
            data = as_file(each.image)
            if each.decision.image_sha256 in known or self._put(each.decision.image_sha256, data):
                known.add(each.decision.image_sha256)
                arrivals.append(_arrival(each, data))
        self._store.add(arrivals)
        self._metrics.quarantined(len(arrivals))

    def _put(self, name: str, data: bytes) -> bool:
        if len(data) > self._max_bytes:
            self._drop(1, "too_large")
            return False
        try:
            self._blobs.put(name, data)
        except BlobError as error:
            if self.problem is None:
                log.warning("%s: images are decided, and not kept", error)
            self.problem = str(error)
            self._drop(1, "storage_failed")
            return False
        self.problem = None
        return True

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        self._metrics.quarantine_dropped(reason, count)


def _arrival(kept: Kept, data: bytes) -> Arrival:
    decision = kept.decision
    return Arrival(decision.image_sha256, decision.id, decision.at.timestamp(), len(data), media_type(data))
