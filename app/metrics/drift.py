"""Is traffic still like the calibration images?"""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.metrics.buckets import NAMESPACE
from detectors.drift import State

__all__ = ["DriftMetrics"]


class DriftMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._drift_state = Gauge(
            "drift_state", "1 for what traffic looks like against the calibration, else 0.", ["state"], **ours
        )
        self._drift_evidence = Gauge(
            "drift_evidence",
            "Evidence that traffic has changed, on a logarithmic scale; 1 raises an alarm.",
            **ours,
        )
        self._drift_top_share = Gauge(
            "drift_top_label_share", "Share of one predicted label among recent rejections.", **ours
        )
        self._drift_alarms = Counter("drift_alarms_total", "Alarms, by what they read as.", ["state"], **ours)
        for state in (State.DRIFTING, State.UNDER_ATTACK):
            self._drift_alarms.labels(state)

    def drift(self, state: State, evidence: float, top_share: float) -> None:
        """What the drift watch sees now; `evidence` and `top_share` in [0, 1]."""
        for each in State:
            self._drift_state.labels(each).set(each is state)
        self._drift_evidence.set(evidence)
        self._drift_top_share.set(top_share)

    def drift_alarm(self, state: State) -> None:
        self._drift_alarms.labels(state).inc()
