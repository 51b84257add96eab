"""Every metric, in one place, on a registry of its own: several gateways can live in one process.

No label value comes from a request: routes are templates; methods, verdicts and problem types come from
fixed sets.
"""

import math
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from app.policy import Detection, Mode, Verdict
from detectors.drift import State
from models.base import ClassifierInfo

__all__ = ["Metrics"]

# The `_created` series double what is scraped and say nothing that Prometheus uses.
disable_created_metrics()  # type: ignore[no-untyped-call]

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SCORES = (
    -5,
    -2,
    -1,
    -0.5,
    0,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.95,
    0.99,
    0.999,
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
)
P_VALUES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
ROWS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 16_384, 65_536)


class Metrics:
    """The metrics of one gateway, and the only place that writes them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ours: dict[str, Any] = {"namespace": "triggerwall", "registry": self.registry}
        self._requests = Counter(
            "http_requests_total", "HTTP requests answered.", ["method", "route", "status"], **ours
        )
        self._request_seconds = Histogram(
            "http_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            **ours,
        )
        self.in_flight = Gauge("http_requests_in_flight", "HTTP requests being answered.", **ours)
        self._problems = Counter("problems_total", "Problems answered, by type.", ["type"], **ours)
        self._images = Counter("images_total", "Images received for classification.", **ours)
        self._image_errors = Counter(
            "image_errors_total", "Images that could not be read, by problem type.", ["type"], **ours
        )
        self._verdicts = Counter("verdicts_total", "Images judged, by verdict.", ["verdict"], **ours)
        self._detections = Counter(
            "detections_total",
            "Images each detector looked at, by whether it found them suspicious.",
            ["detector", "suspicious"],
            **ours,
        )
        self._scores = Histogram(
            "detection_score", "Scores, higher is more suspicious; bounds where a detector stopped early.",
            ["detector"], buckets=SCORES, **ours,
        )  # fmt: skip
        self._p_values = Histogram(
            "detection_p_value", "Conformal p-values of exact scores.", ["detector"], buckets=P_VALUES, **ours
        )
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
        self._near_duplicates = Counter(
            "near_duplicate_images_total",
            "Images nearly the same as one that their caller sent before.",
            **ours,
        )
        self._runs = Counter(
            "near_duplicate_runs_total",
            "Runs of near-duplicates from one caller: somebody may be probing.",
            **ours,
        )
        self._mode = Gauge("mode", "1 for the mode the gateway runs in, else 0.", ["mode"], **ours)
        self._model = Gauge(
            "model_info", "The classifier served.", ["name", "version", "digest", "backend"], **ours
        )
        self._calibration = Gauge("calibration_info", "The calibration enforced.", ["id"], **ours)
        self._calibrated_at = Gauge(
            "calibration_timestamp_seconds", "When the enforced calibration was made, Unix time.", **ours
        )
        self._age = Gauge("calibration_age_seconds", "Age of the enforced calibration.", **ours)
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
        ProcessCollector(registry=self.registry)
        for verdict in Verdict:
            self._verdicts.labels(verdict)
        for state in (State.DRIFTING, State.UNDER_ATTACK):
            self._drift_alarms.labels(state)
        self.calibrated(None, None)

    def serving(self, info: ClassifierInfo, mode: Mode) -> None:
        """Say what is served and how."""
        self._model.labels(info.name, info.version, info.digest, info.backend).set(1)
        for each in Mode:
            self._mode.labels(each).set(each is mode)

    def calibrated(self, id: str | None, created: float | None) -> None:
        """From now on calibration `id`, made at `created` (Unix seconds), is enforced; or none, which
        reads as NaN: an age of 0 would look like a fresh calibration."""
        self._calibration.clear()
        if id is not None:
            self._calibration.labels(id).set(1)
        since = float("nan") if created is None else created
        self._calibrated_at.set(since)
        self._age.set_function(lambda: max(0.0, time.time() - since) if since == since else since)

    def drift(self, state: State, evidence: float, top_share: float) -> None:
        """What the drift watch sees now; `evidence` and `top_share` in [0, 1]."""
        for each in State:
            self._drift_state.labels(each).set(each is state)
        self._drift_evidence.set(evidence)
        self._drift_top_share.set(top_share)

    def drift_alarm(self, state: State) -> None:
        self._drift_alarms.labels(state).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request was answered; `route` is the template that matched, never the path."""
        self._requests.labels(method if method in METHODS else "OTHER", route, status).inc()
        self._request_seconds.labels(route).observe(seconds)

    def problem(self, type: str) -> None:
        self._problems.labels(type).inc()

    def images(self, count: int) -> None:
        self._images.inc(count)

    def near_duplicates(self, count: int, *, run: bool) -> None:
        """`count` images of a request are near-duplicates; with `run` one of them begins a run."""
        self._near_duplicates.inc(count)
        self._runs.inc(run)

    def image_error(self, type: str) -> None:
        self._image_errors.labels(type).inc()

    def judged(self, verdict: Verdict, detections: Iterable[Detection]) -> None:
        """One image was judged."""
        self._verdicts.labels(verdict).inc()
        for found in detections:
            self._detections.labels(found.detector, str(found.suspicious).lower()).inc()
            if math.isfinite(found.score):  # one NaN would make the sum NaN for ever
                self._scores.labels(found.detector).observe(found.score)
            if found.p_value is not None and found.exact:
                self._p_values.labels(found.detector).observe(found.p_value)

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

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Everything in the format that the `accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type
