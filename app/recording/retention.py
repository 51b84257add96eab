"""Removes what is older, or more, than is to be kept; on a thread of its own, every few seconds."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.metrics import Metrics
from app.storage.blobs import Blobs
from app.storage.decisions import DecisionStore
from app.storage.errors import StoreError
from app.storage.quarantine import QuarantineStore

__all__ = ["Limits", "Retention"]

log = logging.getLogger("triggerwall.recording")

EVERY_S = 15.0
HOUR_S = 3600.0
AT_ONCE = 100  # images removed per transaction of the index
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Limits:
    """How long and how much: ages in days, numbers of rows and images, bytes of images. `reviewed_days` is
    for images with a mark."""

    decision_days: float
    decisions: int
    quarantine_days: float
    reviewed_days: float
    quarantine_images: int
    quarantine_bytes: int


class Retention:
    """Keeps decisions and quarantine within `limits`."""

    def __init__(
        self,
        decisions: DecisionStore,
        quarantine: QuarantineStore,
        blobs: Blobs,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._decisions, self._quarantine, self._blobs = decisions, quarantine, blobs
        self._metrics, self._limits = metrics, limits
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End after the sweep under way. Blocks."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(30)

    def _serve(self) -> None:
        self._try(self._tidy)
        while not self._stopping.is_set():
            self._try(self.sweep)
            self._stopping.wait(EVERY_S)

    def _try(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:
            log.warning("nothing was removed: %s", error)
        except Exception:  # the thread goes on: the next time may do
            log.exception("nothing was removed")

    def _tidy(self) -> None:
        """Remove files without an entry; those of the last hour may be another gateway's, just put there."""
        removed = self._blobs.tidy(self._quarantine.known, time.time() - HOUR_S)
        if removed:
            log.info("%d files in quarantine had no entry and were removed", removed)

    def sweep(self) -> None:
        """Remove what is too old or too much. Raises `StoreError`."""
        limits, now = self._limits, datetime.now(UTC)
        gone = self._quarantine.surplus(
            unmarked=time.time() - limits.quarantine_days * DAY.total_seconds(),
            marked=time.time() - limits.reviewed_days * DAY.total_seconds(),
            images=limits.quarantine_images,
            size=limits.quarantine_bytes,
        )
        self.remove(gone)
        oldest = now - limits.decision_days * DAY
        self._decisions.retain(oldest=oldest, most=limits.decisions)
        totals = self._quarantine.totals()
        self._metrics.holding(totals.images, totals.bytes)

    def remove(self, digests: list[str]) -> None:
        """Remove images, files first: what has no entry is never found again. Raises `StoreError`."""
        for start in range(0, len(digests), AT_ONCE):
            some = digests[start : start + AT_ONCE]
            for name in some:
                self._blobs.remove(name)
            self._quarantine.forget(some)
