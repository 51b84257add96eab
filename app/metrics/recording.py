"""What is kept of decisions and images, and what could not be."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.metrics.buckets import NAMESPACE, SECONDS

__all__ = ["RecordingMetrics"]

DECISIONS_DROPPED = ("queue_full", "store_failed")
QUARANTINE_DROPPED = (*DECISIONS_DROPPED, "storage_failed", "too_large")


class RecordingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._written = Counter("decisions_recorded_total", "Decisions written to the database.", **ours)
        self._write_seconds = Histogram(
            "decisions_write_duration_seconds", "Writing one batch of decisions.", buckets=SECONDS, **ours
        )
        self._decisions_dropped = Counter(
            "decisions_dropped_total", "Decisions that could not be kept, by reason.", ["reason"], **ours
        )
        self.decisions_waiting = Gauge("decisions_waiting", "Decisions that wait to be written.", **ours)
        self._quarantined = Counter("quarantined_total", "Images put into quarantine, or come again.", **ours)
        self._quarantine_dropped = Counter(
            "quarantine_dropped_total", "Images that could not be kept, by reason.", ["reason"], **ours
        )
        self._held = Gauge("quarantine_images", "Images in quarantine.", **ours)
        self._held_bytes = Gauge("quarantine_bytes", "Size of the images in quarantine.", **ours)
        for reason in DECISIONS_DROPPED:
            self._decisions_dropped.labels(reason)
        for reason in QUARANTINE_DROPPED:
            self._quarantine_dropped.labels(reason)

    def decisions_written(self, count: int, seconds: float) -> None:
        """One batch of decisions was written."""
        self._written.inc(count)
        self._write_seconds.observe(seconds)

    def decisions_dropped(self, reason: str, count: int) -> None:
        self._decisions_dropped.labels(reason).inc(count)

    def quarantined(self, count: int) -> None:
        self._quarantined.inc(count)

    def quarantine_dropped(self, reason: str, count: int) -> None:
        self._quarantine_dropped.labels(reason).inc(count)

    def holding(self, images: int, bytes: int) -> None:
        """So much is in quarantine now."""
        self._held.set(images)
        self._held_bytes.set(bytes)
