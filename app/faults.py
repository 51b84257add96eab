"""What the classifier and the detectors fail on: counted, logged, and told from a device that is broken."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from app.isolation import Unjudged
from app.metrics import Metrics

__all__ = ["FaultWatch"]

log = logging.getLogger("triggerwall.faults")

QUIET_S = 10.0  # between two tracebacks: who finds an image that makes a detector fail shall not fill the log
LONGEST_REASON = 300  # characters of an exception's text that are logged


class FaultWatch:
    """Lives on the threads where batches fail."""

    def __init__(self, metrics: Metrics, self_test: Callable[[], None]) -> None:
        """`self_test` judges images of the gateway's own, and raises what that raises."""
        self._metrics, self._self_test = metrics, self_test
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._untold = 0
        self.broken: str | None = None  # why nothing can be judged, while that is so

    def failed(self, error: BaseException, images: int) -> None:
        """A call with so many images failed."""
        with self._lock:
            self._untold += 1
            now = time.monotonic()
            if now < self._silent_until:
                return
            self._silent_until = now + QUIET_S
            untold, self._untold = self._untold, 0
        log.error(
            "%d images could not be judged together (%d such failures since the last line): %s: %r",
            *(images, untold, type(error).__name__, str(error)[:LONGEST_REASON]),
            exc_info=error,
        )

    def judged(self, outcomes: Sequence[object]) -> None:
        """A batch ended so. Where nothing of it could be judged, find out whose fault that is."""
        unjudged = [each for each in outcomes if isinstance(each, Unjudged)]
        for each in unjudged:
            self._metrics.unjudged(each.fault)
        if len(unjudged) < len(outcomes):
            self.broken = None
        elif unjudged:
            self.broken = self._find_out()

    def _find_out(self) -> str | None:
        try:
            self._self_test()
        except BaseException as error:
            reason = f"the classifier or a detector fails on plain grey images too: {type(error).__name__}"
            log.critical("%s", reason)
            return reason
        return None
