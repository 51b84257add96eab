"""Every decision becomes a row, written beside the path of the images and never in its way.

`record` only queues. A thread takes the digests, writes decisions in batches, and hands rejected images on to
the quarantine. A killed process loses what was not written yet: at most the last `every` seconds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.firewall import Inspection
from app.images import Pixels
from app.metrics import Metrics
from app.policy import Mode
from app.recording.images import digest
from app.recording.writer import BackgroundWriter
from app.storage.decisions import Decision, DecisionStore
from app.storage.errors import NumberTaken
from app.storage.ids import DecisionIds

__all__ = ["JudgedRequest", "Kept", "Recorder"]


@dataclass(frozen=True)
class JudgedRequest:
    """The readable images of one request: their places in it, what came, and what was found."""

    at: float
    request_id: str
    calibration_id: str | None
    mode: Mode
    places: Sequence[int]
    images: Sequence[bytes | Pixels]
    inspections: Sequence[Inspection]


@dataclass(frozen=True)
class Kept:
    """A decision that was written, and the image that it was made on."""

    decision: Decision
    image: bytes | Pixels


class Recorder:
    """Takes what was judged and keeps it."""

    def __init__(
        self,
        store: DecisionStore,
        metrics: Metrics,
        hand_on: Callable[[Sequence[Kept]], None],
        *,
        every: float,
        capacity: int,
        max_bytes: int,
    ) -> None:
        """`hand_on` is given what was written. `capacity` decisions and `max_bytes` of images may wait."""
        self._store, self._metrics, self._hand_on = store, metrics, hand_on
        self._ids = DecisionIds()
        self._writer = BackgroundWriter(
            "decisions", self._write, self._lost, every=every, capacity=capacity, max_bytes=max_bytes
        )
        self._prepared: tuple[Sequence[JudgedRequest], list[Kept]] | None = None
        self.dropped = 0
        self.problem: str | None = None
        metrics.decisions_waiting.set_function(lambda: self._writer.waiting)

    def start(self) -> None:
        self._writer.start()

    def close(self) -> None:
        """Write what waits. Blocks."""
        self._writer.close()

    def record(self, judged: JudgedRequest) -> None:
        """Queue what was judged; what there is no room for is counted and let go."""
        size = sum(len(each) if isinstance(each, bytes) else each.nbytes for each in judged.images)
        if not self._writer.offer(judged, len(judged.inspections), size):
            self._drop(len(judged.inspections), "queue_full")

    def _write(self, batch: Sequence[JudgedRequest]) -> None:
        if self._prepared is None or self._prepared[0] is not batch:  # else: the same batch, once more
            self._prepared = batch, [kept for judged in batch for kept in self._decisions(judged)]
        kept = self._prepared[1]
        started = time.perf_counter()
        try:
            self._store.add([each.decision for each in kept])
        except NumberTaken:
            self._prepared = None  # the next try draws new ones
            raise
        except Exception as error:
            self.problem = f"decisions cannot be written: {type(error.__cause__ or error).__name__}"
            raise
        self.problem, self._prepared = None, None
        self._metrics.decisions_written(len(kept), time.perf_counter() - started)
        self._hand_on(kept)

    def _decisions(self, judged: JudgedRequest) -> list[Kept]:
        at = datetime.fromtimestamp(judged.at, UTC)
        found = []
        for place, image, inspection in zip(judged.places, judged.images, judged.inspections, strict=True):
            decision = Decision(
                id=self._ids.next(judged.at),
                at=at,
                request_id=judged.request_id,
                place=place,
                image_sha256=digest(image),
                label=inspection.label,
                confidence=inspection.confidence,
                verdict=inspection.verdict,
                mode=judged.mode,
                calibration_id=judged.calibration_id,
                detections=inspection.detections,
            )
            found.append(Kept(decision, image))
        return found

    def _lost(self, batch: Sequence[JudgedRequest], error: Exception) -> None:
        self._prepared = None
        self._drop(sum(len(each.inspections) for each in batch), "store_failed")

    def _drop(self, count: int, reason: str) -> None:
        self.dropped += count
        self._metrics.decisions_dropped(reason, count)
