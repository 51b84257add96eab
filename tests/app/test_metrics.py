"""Metrics by Prometheus' conventions, on a registry of their own."""

import math
import shutil
import subprocess
import time

import pytest

from app.metrics import Metrics
from app.policy import Detection, Mode, Verdict
from detectors.drift import State
from models.base import ClassifierInfo

INFO = ClassifierInfo(
    "tiny",
    "1",
    "d" * 64,
    "zoo:x",
    "torch",
    "weights",
    4,
    None,
    channels=1,
    size=(8, 8),
    interpolation="bilinear",
)


def busy() -> Metrics:
    """Every metric has been written at least once."""
    metrics = Metrics()
    metrics.serving(INFO, Mode.MONITOR)
    metrics.calibrated("20260101T000000Z-00000000", time.time() - 100)
    metrics.request("GET", "/info", 200, 0.01)
    metrics.problem("not-calibrated")
    metrics.images(2)
    metrics.image_error("empty-image")
    metrics.judged(
        Verdict.REJECTED,
        [Detection("psc", 0.97, 0.9, 0.004, True, True), Detection("spc", 0.6, 0.8, 0.3, False, False)],
    )
    metrics.batch_images(2)
    metrics.batch(34, [0.001, 0.002], retried=False)
    metrics.batch(17, [0.001], retried=True)
    metrics.stage("decode", 0.001)
    metrics.drift(State.DRIFTING, 0.4, 0.25)
    metrics.drift_alarm(State.DRIFTING)
    return metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_values() -> None:
    metrics = busy()
    assert sample(metrics, "triggerwall_mode", mode="monitor") == 1
    assert sample(metrics, "triggerwall_mode", mode="enforce") == 0
    assert sample(metrics, "triggerwall_verdicts_total", verdict="rejected") == 1
    assert sample(metrics, "triggerwall_verdicts_total", verdict="accepted") == 0
    assert sample(metrics, "triggerwall_detections_total", detector="psc", suspicious="true") == 1
    assert sample(metrics, "triggerwall_detection_p_value_bucket", detector="psc", le="0.005") == 1
    assert sample(metrics, "triggerwall_detection_p_value_bucket", detector="psc", le="0.0025") == 0
    assert sample(metrics, "triggerwall_detection_p_value_count", detector="spc") is None  # a bound
    assert sample(metrics, "triggerwall_detection_score_bucket", detector="psc", le="0.95") == 0
    assert sample(metrics, "triggerwall_queue_duration_seconds_count") == 2
    assert sample(metrics, "triggerwall_batch_images_sum") == 2
    assert sample(metrics, "triggerwall_batch_rows_sum") == 51
    assert sample(metrics, "triggerwall_batches_retried_total") == 1
    age = sample(metrics, "triggerwall_calibration_age_seconds")
    assert age is not None
    assert 100 <= age < 160


def test_drift_is_one_state_of_four() -> None:
    metrics = busy()
    states = {str(state): sample(metrics, "triggerwall_drift_state", state=state) for state in State}
    assert states == {"steady": 0, "drifting": 1, "under_attack": 0, "learning": 0}
    assert sample(metrics, "triggerwall_drift_evidence") == 0.4
    assert sample(metrics, "triggerwall_drift_top_label_share") == 0.25
    assert sample(metrics, "triggerwall_drift_alarms_total", state="drifting") == 1
    assert sample(metrics, "triggerwall_drift_alarms_total", state="under_attack") == 0


def test_only_the_enforced_calibration_is_shown() -> None:
    metrics = busy()
    metrics.calibrated("second", time.time())
    assert sample(metrics, "triggerwall_calibration_info", id="second") == 1
    assert sample(metrics, "triggerwall_calibration_info", id="20260101T000000Z-00000000") is None
    metrics.calibrated(None, None)
    assert sample(metrics, "triggerwall_calibration_info", id="second") is None
    age = sample(metrics, "triggerwall_calibration_age_seconds")
    assert age is not None
    assert math.isnan(age)


def test_methods_that_nobody_knows_share_a_label() -> None:
    metrics = Metrics()
    for method in ("BREW", "X" * 100):
        metrics.request(method, "unmatched", 405, 0)
    assert (
        sample(metrics, "triggerwall_http_requests_total", method="OTHER", route="unmatched", status="405")
        == 2
    )


def test_gateways_do_not_share_metrics() -> None:
    assert sample(busy(), "triggerwall_images_total") == 2
    assert sample(Metrics(), "triggerwall_images_total") == 0


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics")],
)
def test_formats(accept: str, kind: str) -> None:
    content, content_type = busy().exposition(accept)
    assert content_type.startswith(kind)
    assert b"triggerwall_images_total 2.0" in content


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_of() -> None:
    content, _ = busy().exposition("")
    check = subprocess.run(["promtool", "check", "metrics"], input=content, capture_output=True, check=False)
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")
