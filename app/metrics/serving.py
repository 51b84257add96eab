"""What is served, and what is enforced."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from app.metrics.buckets import NAMESPACE
from app.policy import Mode
from models.base import ClassifierInfo

__all__ = ["ServingMetrics"]


class ServingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._mode = Gauge("mode", "1 for the mode the gateway runs in, else 0.", ["mode"], **ours)
        self._model = Gauge(
            "model_info", "The classifier served.", ["name", "version", "digest", "backend"], **ours
        )
        self._calibration = Gauge("calibration_info", "The calibration enforced.", ["id"], **ours)
        self._calibrated_at = Gauge(
            "calibration_timestamp_seconds", "When the enforced calibration was made, Unix time.", **ours
        )
        self._age = Gauge("calibration_age_seconds", "Age of the enforced calibration.", **ours)
        self._alpha = Gauge(
            "calibration_alpha", "False-positive budget of the enforced calibration, a share.", **ours
        )
        self._mismatched = Gauge(
            "calibration_mismatched",
            "1 where the calibration activated last is not enforced: it does not fit what is served.",
            **ours,
        )
        self._confirmed = Gauge(
            "calibration_confirmed_age_seconds",
            "Seconds since the database last said that what is enforced is active.",
            **ours,
        )
        self.calibrated(None, None)

    def confirmed(self, age: Callable[[], float]) -> None:
        """`age`: seconds since what is enforced was last known to be what is active."""
        self._confirmed.set_function(age)

    def serving(self, info: ClassifierInfo, mode: Mode) -> None:
        """Say what is served and how."""
        self._model.labels(info.name, info.version, info.digest, info.backend).set(1)
        for each in Mode:
            self._mode.labels(each).set(each is mode)

    def calibrated(self, id: str | None, created: float | None, alpha: float | None = None) -> None:
        """From now on calibration `id`, made at `created` (Unix seconds), is enforced; or none, which
        reads as NaN: an age of 0 would look like a fresh calibration."""
        self._calibration.clear()
        if id is not None:
            self._calibration.labels(id).set(1)
        since = float("nan") if created is None else created
        self._calibrated_at.set(since)
        self._age.set_function(lambda: max(0.0, time.time() - since) if since == since else since)
        self._alpha.set(float("nan") if alpha is None else alpha)
        self._mismatched.set(0)

    def mismatched(self) -> None:
        """The calibration activated last cannot be enforced here."""
        self._mismatched.set(1)
