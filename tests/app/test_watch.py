"""The watch over HTTP traffic: state, metrics, log, and what another calibration does to it."""

import logging

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.firewall import Inspection
from app.gateway import Gateway
from app.policy import Detection, Verdict
from detectors.drift import State
from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import gateway_of
from tests.app.tiny import encoded, form, pixels, pngs


def drift_of(client: TestClient) -> dict[str, object]:
    found: dict[str, object] = client.get("/info").json()["drift"]
    return found


def watched(make_client: MakeClient, count: int = 300) -> TestClient:
    client = make_client(alpha=0.05, detectors=("profile",), mode="monitor", max_images=64)
    assert client.post("/calibrate", files=form(pngs(count, seed=1))).status_code == 201
    return client


def send(client: TestClient, images: np.ndarray) -> None:
    for start in range(0, len(images), 60):
        batch = [encoded(image) for image in images[start : start + 60]]
        assert client.post("/classify", files=form(batch)).status_code == 200


def test_learning_until_there_is_a_calibration(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    client.post("/classify", files=form(pngs(3)))
    assert drift_of(client) == {
        "state": "learning",
        "images": 0,
        "alarms": 0,
        "alarmed_by": None,
        "evidence": {},
        "top_label": None,
        "fleet": None,
    }
    assert 'triggerwall_drift_state{state="learning"} 1.0' in client.get("/metrics").text
    client.post("/calibrate", files=form(pngs(40)))
    assert drift_of(client)["state"] == "steady"


def test_traffic_like_the_calibration_is_steady_and_another_kind_is_not(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = watched(make_client)
    send(client, pixels(300, seed=2))
    drift = drift_of(client)
    assert (drift["state"], drift["images"], drift["alarms"]) == ("steady", 300, 0)
    with caplog.at_level(logging.WARNING, "triggerwall.drift"):
        send(client, black_or_white(300))
    drift = drift_of(client)
    assert drift["state"] == "drifting"
    assert drift["alarms"] >= 1  # type: ignore[operator]
    assert str(drift["alarmed_by"]).startswith("profile")
    lines = [record.getMessage() for record in caplog.records if record.name == "triggerwall.drift"]
    assert lines[0].startswith("steady -> drifting after 3")
    assert ": traffic is no longer like the calibration images" in lines[0]
    text = client.get("/metrics").text
    assert f'triggerwall_drift_state{{state="{drift["state"]}"}} 1.0' in text
    assert 'triggerwall_drift_state{state="steady"} 0.0' in text
    alarms = sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("triggerwall_drift_alarms_total{")
    )
    assert alarms == drift["alarms"]


def test_another_calibration_is_watched_from_its_beginning(make_client: MakeClient) -> None:
    client = watched(make_client)
    send(client, black_or_white(300))
    assert drift_of(client)["state"] != "steady"
    assert client.post("/calibrate", files=form(pngs(300, seed=5))).status_code == 201
    assert drift_of(client) | {"evidence": {}} == {
        "state": "steady",
        "images": 0,
        "alarms": 0,
        "alarmed_by": None,
        "evidence": {},
        "top_label": None,
        "fleet": None,
    }


def black_or_white(count: int) -> np.ndarray:
    """Another kind of noise than that of the calibration."""
    return (pixels(count, seed=3) > 127).astype(np.uint8) * 255


def inspection(label: int, score: float, suspicious: bool) -> Inspection:
    verdict = Verdict.FLAGGED if suspicious else Verdict.ACCEPTED
    return Inspection(label, 0.9, verdict, (Detection("profile", score, 1.0, 0.5, suspicious, True),))


def test_what_another_calibration_judged_says_nothing(make_client: MakeClient) -> None:
    client = watched(make_client)
    gateway: Gateway = gateway_of(client)
    gateway.watch.observe("another", [inspection(0, 1e9, True)] * 500)
    gateway.watch.observe(None, [inspection(0, 1e9, True)] * 500)
    monitor = gateway.watch.monitor
    assert monitor is not None
    assert (monitor.images, gateway.watch.state) == (0, State.STEADY)


def test_rejections_of_one_label_read_as_an_attack(make_client: MakeClient) -> None:
    client = watched(make_client)
    gateway: Gateway = gateway_of(client)
    guard = gateway.firewall.guard
    assert guard is not None
    part = guard.watches[0].calibration
    assert part is not None
    label = part.groups[0].labels[0]
    cleared = [
        scores[scores <= limit]
        for scores, limit in zip(map(part.benign_scores, range(4)), part.thresholds(4), strict=True)
    ]
    random = np.random.default_rng(0)
    for number in range(600):
        attacked = number >= 300 and number % 10 == 0
        where = label if attacked else int(random.integers(4))
        score = 1e9 if attacked else float(random.choice(cleared[where]))
        gateway.watch.observe(guard.id, [inspection(where, score, attacked)])
    assert gateway.watch.state is State.UNDER_ATTACK
    top = drift_of(client)["top_label"]
    assert isinstance(top, dict)
    assert (top["label"], top["share"]) == (label, 1.0)


def test_fixed_thresholds_without_a_calibration_have_nothing_to_compare_with(make_client: MakeClient) -> None:
    client = make_client(thresholds="fixed")
    client.post("/classify", files=form(pngs(5)))
    assert drift_of(client)["state"] == "learning"
