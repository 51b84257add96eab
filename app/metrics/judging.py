"""Images, verdicts, and what detectors said."""

import math
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.isolation import Fault
from app.metrics.buckets import NAMESPACE, P_VALUES, SCORES
from app.policy import Detection, Verdict

__all__ = ["JudgingMetrics"]


class JudgingMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ours: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._images = Counter("images_total", "Images received for classification.", **ours)
        self._image_errors = Counter(
            "image_errors_total", "Images that could not be read, by problem type.", ["type"], **ours
        )
        self._verdicts = Counter("verdicts_total", "Images judged, by verdict.", ["verdict"], **ours)
        self._uninspected = Counter(
            "images_uninspected_total",
            "Images answered that no detector had looked at: without a calibration, or failing open.",
            **ours,
        )
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
        self._unjudged = Counter(
            "images_unjudged_total",
            "Images that the classifier or a detector failed on, by fault.",
            ["fault"],
            **ours,
        )
        for verdict in Verdict:
            self._verdicts.labels(verdict)

    def images(self, count: int) -> None:
        self._images.inc(count)

    def image_error(self, type: str) -> None:
        self._image_errors.labels(type).inc()

    def unjudged(self, fault: Fault) -> None:
        self._unjudged.labels(fault).inc()

    def judged(self, verdict: Verdict, detections: Iterable[Detection]) -> None:
        """One image was judged."""
        self._verdicts.labels(verdict).inc()
        looked = False
        for found in detections:
            looked = True
            self._detections.labels(found.detector, str(found.suspicious).lower()).inc()
            if math.isfinite(found.score):  # one NaN would make the sum NaN for ever
                self._scores.labels(found.detector).observe(found.score)
            if found.p_value is not None and found.exact:
                self._p_values.labels(found.detector).observe(found.p_value)
        if not looked and verdict is not Verdict.REJECTED:
            self._uninspected.inc()

    def near_duplicates(self, count: int, *, run: bool) -> None:
        """`count` images of a request are near-duplicates; with `run` one of them begins a run."""
        self._near_duplicates.inc(count)
        self._runs.inc(run)
