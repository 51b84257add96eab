"""Device batches, and the time of each stage."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.metrics.buckets import IMAGES, NAMESPACE, ROWS, SECONDS

__all__ = ["BatchMetrics"]


class BatchMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._batch_images = Histogram("batch_images", "Images in a device batch.", buckets=IMAGES, **ours)
        self._batch_rows = Histogram(
            "batch_rows",
            "Most forward rows that a device batch may cost: images and their copies.",
            buckets=ROWS,
            **ours,
        )
        self._retried = Counter(
            "batches_retried_total", "Parts of failed batches that were tried again alone.", **ours
        )
        self._queue_seconds = Histogram(
            "queue_duration_seconds", "Wait for the device, per request.", buckets=SECONDS, **ours
        )
        self._stage_seconds = Histogram(
            "stage_duration_seconds",
            "Decoding one image; predicting, detecting or calibrating on one batch.",
            ["stage"],
            buckets=SECONDS,
            **ours,
        )
        self.queue_rows = Gauge("queue_rows", "Forward rows that wait for the device.", **ours)
        self.queue_capacity = Gauge(
            "queue_capacity_rows", "Forward rows that may wait; more are answered 503.", **ours
        )

    def batch_images(self, count: int) -> None:
        """So many images are judged together."""
        self._batch_images.observe(count)

    def batch(self, rows: int, waited: Iterable[float], *, retried: bool) -> None:
        """One device batch went out; each of its requests had waited so many seconds."""
        self._batch_rows.observe(rows)
        if retried:
            self._retried.inc()
            return
        for seconds in waited:
            self._queue_seconds.observe(seconds)

    def stage(self, name: str, seconds: float) -> None:
        self._stage_seconds.labels(name).observe(seconds)
