"""Keeps the drift monitor of the enforced calibration, and says what it finds: metrics, log, `/info`.

Lives on the event loop and takes outcomes after they were answered for; the device never waits for it.
"""

import logging
from collections.abc import Sequence

from app.firewall import Firewall, Guard, Inspection
from app.metrics import Metrics
from app.policy import Verdict
from detectors.drift import DriftMonitor, State

__all__ = ["DriftWatch"]

log = logging.getLogger("triggerwall.drift")

MEANING = {
    State.STEADY: "traffic is like the calibration images again",
    State.DRIFTING: "traffic is no longer like the calibration images: calibrate on recent ones",
    State.UNDER_ATTACK: "rejections concentrate on one label: look at what is sent, and who sends it",
    State.LEARNING: "there is no calibration to compare traffic with",
}


class DriftWatch:
    """Follows whatever `firewall` enforces: another calibration is watched from its beginning."""

    def __init__(self, firewall: Firewall, metrics: Metrics, run_length: float) -> None:
        """`run_length`: see `DriftMonitor`."""
        self.firewall, self.metrics, self.run_length = firewall, metrics, run_length
        self._guard: Guard | None = None
        self._monitor: DriftMonitor | None = None
        self._tell()

    @property
    def monitor(self) -> DriftMonitor | None:
        """That of the calibration enforced now; None where none is."""
        if self.firewall.guard is not self._guard:
            self._guard = self.firewall.guard
            self._monitor = self.begin(self._guard)
            self._tell()
        return self._monitor

    @property
    def state(self) -> State:
        monitor = self.monitor
        return State.LEARNING if monitor is None else monitor.state

    @property
    def guard(self) -> Guard | None:
        """By which `monitor` is."""
        return self._guard

    def begin(self, guard: Guard | None) -> DriftMonitor | None:
        """A monitor of what `guard` enforces that has seen nothing; None where nothing is calibrated."""
        watches = [watch for watch in guard.watches if watch.calibration is not None] if guard else []
        if not watches:
            return None
        parts = [watch.calibration for watch in watches if watch.calibration is not None]
        limits = {watch.detector: watch.limits for watch in watches}
        ties = {watch.detector: watch.shares for watch in watches}
        return DriftMonitor(parts, limits, ties=ties, run_length=self.run_length)

    def observe(self, calibration: str | None, inspections: Sequence[Inspection]) -> None:
        """Take what was judged by `calibration`; what another than the enforced one judged says nothing."""
        monitor = self.monitor
        if monitor is None or self._guard is None or calibration != self._guard.id:
            return
        before = monitor.state
        for inspection in inspections:
            if inspection.verdict is Verdict.UNINSPECTED:
                continue  # some detectors said nothing
            if monitor.observe(inspection.label, inspection.detections):
                self.metrics.drift_alarm(monitor.state)
        self._tell()
        if monitor.state is not before:
            steady = monitor.state is State.STEADY
            log.log(
                logging.INFO if steady else logging.WARNING,
                "%s -> %s after %d images (%s): %s",
                *(before, monitor.state, monitor.images, monitor.alarmed_by, MEANING[monitor.state]),
            )

    def _tell(self) -> None:
        monitor = self._monitor
        if monitor is None:
            self.metrics.drift(State.LEARNING, 0.0, 0.0)
        else:
            self.metrics.drift(monitor.state, monitor.evidence, monitor.top_share)
