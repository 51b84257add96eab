"""A gateway in front of somebody else's endpoint: what its callers meet when that behaves, and when not."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from app.assembly import build_detectors, connection_of
from app.firewall import Firewall
from app.main import create_app
from detectors.base import AccessError
from models.loading import load_bundle
from models.remote import load_remote
from models.remote.fake import FakeServer, Fault
from models.remote.spec import RemoteSpec
from tests.app.conftest import LOOPBACK, MakeSettings
from tests.app.tiny import CLASSES, SIZE, encoded, form, pixels, pngs
from tests.app.v2.conftest import json_request

QUICK = {"remote_timeout_s": 0.3, "remote_retries": 0, "remote_breaker_failures": 50}


class Guarded:
    """A gateway, and the fake endpoint behind it."""

    def __init__(self, server: FakeServer, firewall: Firewall, client: TestClient) -> None:
        self.server, self.firewall, self.client = server, firewall, client

    def classify(self, count: int = 6, **options: Any) -> Any:
        return self.client.post("/classify", files=form(pngs(count, seed=3)), **options)

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"triggerwall_{name}"))


Guard = Callable[..., Guarded]


def remote_spec(access: str, **fields: Any) -> RemoteSpec:
    size = {"size": [SIZE, SIZE], "channels": 1}
    base = {"name": "far", "url": "http://far.example", "model_name": "far", "labels": CLASSES, "input": size}
    return RemoteSpec.model_validate({**base, "access": access, "max_batch": 64, **fields})


@pytest.fixture
def guard(make_settings: MakeSettings, bundle: Path) -> Iterator[Guard]:
    """Calibrated gateways in front of the tiny network, which is elsewhere."""
    running: list[TestClient] = []
    network = load_bundle(bundle)

    def build(
        access: str = "labels", *, calibrate: bool = True, faults: Sequence[Fault] = (), **overrides: Any
    ) -> Guarded:
        def answer(images: np.ndarray) -> np.ndarray:
            logits = network.logits(torch.from_numpy(np.array(images, dtype=np.float32)))
            found: np.ndarray = (logits.argmax(1) if access == "labels" else logits.softmax(1)).numpy()
            return found

        settings = make_settings(**{**QUICK, **overrides})
        server = FakeServer(answer, faults)
        classifier = load_remote(remote_spec(access), connection_of(settings), server.transport())
        firewall = Firewall(
            classifier, build_detectors(classifier, settings), mode=settings.mode,
            fail_open=settings.remote_fail_open,
        )  # fmt: skip
        client = TestClient(create_app(settings, firewall), base_url=LOOPBACK)
        client.__enter__()
        running.append(client)
        if calibrate:
            answer_ = client.post("/calibrate", files=form(pngs(40, seed=1)))
            assert answer_.status_code == 201, answer_.text
        server.requests.clear()
        return Guarded(server, firewall, client)

    yield build
    for client in running:
        client.__exit__(None, None, None)


@pytest.mark.parametrize("access", ["labels", "probabilities"])
def test_verdicts_are_those_of_the_same_network_here(
    guard: Guard, access: str, calibrated: TestClient
) -> None:
    far = guard(access).classify(24).json()["results"]
    near = calibrated.post("/classify", files=form(pngs(24, seed=3))).json()["results"]
    assert [each["verdict"] for each in far] == [each["verdict"] for each in near]
    assert {each["verdict"] for each in far} == {"accepted", "rejected"}
    for there, here in zip(far, near, strict=True):
        if here["prediction"]:
            assert there["prediction"]["label"] == here["prediction"]["label"]
            expected = (
                None if access == "labels" else pytest.approx(here["prediction"]["confidence"], rel=1e-4)
            )
            assert there["prediction"]["confidence"] == expected


@pytest.mark.parametrize("detector", ["spc", "nspc", "label_profile", "teco"])
def test_labels_alone_suffice_for_some_detectors(guard: Guard, detector: str) -> None:
    results = guard(detectors=(detector,)).classify(8).json()["results"]
    assert all(each["verdict"] in ("accepted", "rejected") for each in results)


@pytest.mark.parametrize("detector", ["profile", "psc", "strip", "shrinkpad", "deepsweep"])
def test_the_others_are_refused_in_one_sentence(guard: Guard, detector: str) -> None:
    with pytest.raises(AccessError, match="far gives only labels") as raised:
        guard(detectors=(detector,))
    assert f"detector {detector} needs" in str(raised.value)
    if detector == "psc":
        with pytest.raises(AccessError, match="gives only probabilities"):
            guard("probabilities", detectors=(detector,))


def test_queries_are_few_and_counted(guard: Guard) -> None:
    """One image at a time: itself, then stage by stage as many scaled copies as settle it, five at most."""
    there = guard()
    for image in pngs(12, seed=3):
        assert there.client.post("/classify", files=form([image])).status_code == 200
    asked = sum(rows for rows, _ in there.server.requests)
    assert there.metric("upstream_queries_per_decision_sum") == asked
    assert there.metric("upstream_queries_per_decision_count") == 12
    assert 12 < asked < 12 * 6
    full = guard()
    for image in pngs(12, seed=3):
        full.client.post("/classify?full=true", files=form([image]))
    assert sum(rows for rows, _ in full.server.requests) == 12 * 6
    assert len(full.server.requests) <= 12 * (1 + len(full.firewall.guard.watches[0].scorer.stages))


# --- failures -------------------------------------------------------------------------------------


FAILURES: list[tuple[Fault, int, str]] = [
    ("down", 503, "upstream-unavailable"),
    ("busy", 503, "upstream-unavailable"),
    ("slow", 504, "upstream-timeout"),
    ("drip", 504, "upstream-timeout"),
    ("error", 502, "upstream-failed"),
    ("nan", 502, "upstream-failed"),
    ("short-batch", 502, "upstream-failed"),
    ("out-of-range", 502, "upstream-failed"),
]


@pytest.mark.parametrize("answered_before", [0, 1])
def test_failures_are_problems_and_nothing_leaves(guard: Guard, answered_before: int) -> None:
    """Whether the label itself cannot be had, or what would inspect it."""
    there = guard("probabilities")
    for fault, status, slug in FAILURES:
        there.server.faults = [None] * answered_before + [fault]
        answer = there.classify(1)
        assert answer.status_code == status, fault
        body = answer.json()
        assert body["type"] == f"urn:triggerwall:problem:{slug}"
        assert "results" not in body
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert "far.example" not in answer.text
        assert there.classify(1).status_code == 200
        there.server.faults = [None] * answered_before + [fault]
        v2 = there.client.post("/v2/models/far/infer", json=json_request(pixels(1)[:, None], "UINT8"))
        assert (v2.status_code, bool(v2.json()["error"])) == (status, True)


def test_an_outage_costs_one_attempt_a_batch(guard: Guard) -> None:
    there = guard(batch_delay_ms=50)
    there.server.faults = ["down"] * 50
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(there.classify(2).status_code)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [503] * 8
    assert len(there.server.requests) < 8


def test_a_wrong_answer_about_one_image_does_not_take_the_others_along(guard: Guard) -> None:
    there = guard(mode="monitor")
    honest = there.server.answer

    def choosy(images: np.ndarray) -> np.ndarray:
        found = honest(images)
        return found[:-1] if any(not image.any() for image in np.asarray(images)) else found

    there.server.answer = choosy
    answers: dict[str, int] = {}

    def ask(name: str, images: list[bytes]) -> None:
        answers[name] = there.client.post("/classify", files=form(images)).status_code

    threads = [threading.Thread(target=ask, args=(f"good {n}", pngs(1, seed=n))) for n in range(5)]
    threads.append(threading.Thread(target=ask, args=("bad", [encoded(pixels(1)[0] * 0)])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.pop("bad") == 502
    assert [*answers.values()] == [200] * 5


def test_after_repeated_failures_nobody_waits(guard: Guard) -> None:
    there = guard(remote_breaker_failures=2, remote_breaker_rest_s=60)
    there.server.faults = ["slow"] * 2
    assert [there.classify(1).status_code for _ in range(2)] == [504, 504]
    answer = there.classify(1)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 30
    assert len(there.server.requests) == 2
    assert there.metric("upstream_breaker_open") == 1
    assert there.metric('upstream_attempts_total{outcome="timeout"}') == 2


def test_the_callers_deadline_ends_it(guard: Guard) -> None:
    there = guard(remote_timeout_s=100)
    there.server.faults = ["slow"]
    started = time.monotonic()
    answer = there.classify(1, headers={"X-Request-Timeout-Ms": "400"})
    assert answer.status_code == 504
    assert time.monotonic() - started < 10
    assert there.classify(1).status_code == 200  # the device's thread is free again


def test_waiting_for_somebody_else_is_not_being_stuck(guard: Guard) -> None:
    """Each attempt is shorter than the watchdog's patience; many of them are not."""
    there = guard(stuck_after_s=1, remote_timeout_s=0.4, remote_retries=6)
    there.server.faults = ["slow"] * 4
    ended = threading.Event()
    seen: list[int] = []

    def watch() -> None:
        while not ended.wait(0.05):
            seen.append(there.client.get("/livez").status_code)

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.monotonic()
    assert there.classify(1).status_code == 200
    assert time.monotonic() - started > 1.5
    ended.set()
    thread.join()
    assert seen
    assert set(seen) == {200}


def test_it_starts_before_the_endpoint_does(guard: Guard) -> None:
    there = guard(calibrate=False, faults=("down",), mode="monitor")
    assert there.client.get("/readyz").status_code == 200
    assert there.classify(1).json()["results"][0]["verdict"] == "flagged"


def test_an_outage_during_calibration_is_told_and_changes_nothing(guard: Guard) -> None:
    there = guard()
    before = there.client.get("/info").json()
    there.server.faults = [None, "error"]
    answer = there.client.post("/calibrate", files=form(pngs(40, seed=2)))
    assert (answer.status_code, answer.json()["type"][-15:]) == (502, "upstream-failed")
    assert there.client.get("/info").json() == before
    assert there.classify(1).status_code == 200


# --- failing open ---------------------------------------------------------------------------------


def test_failing_open_marks_every_answer(guard: Guard, caplog: pytest.LogCaptureFixture) -> None:
    there = guard(remote_fail_open=True)
    there.server.faults = [None, "down"]
    results = there.classify(3).json()["results"]
    assert [each["verdict"] for each in results] == ["uninspected"] * 3
    assert all(each["prediction"]["label"] in range(4) for each in results)
    assert all(each["detections"] == [] for each in results)
    assert "3 images are answered uninspected" in caplog.text
    assert there.metric('verdicts_total{verdict="uninspected"}') == 3
    there.server.faults = [None, "down"]
    v2 = there.client.post("/v2/models/far/infer", json=json_request(pixels(2)[:, None], "UINT8")).json()
    outputs = {output["name"]: output["data"] for output in v2["outputs"]}
    assert outputs["verdict"] == ["uninspected"] * 2
    assert v2["parameters"]["uninspected"] == "0,1"
    again = there.client.post("/v2/models/far/infer", json=json_request(pixels(1)[:, None], "UINT8"))
    assert "uninspected" not in again.text


def test_failing_open_gives_no_label_where_there_is_none(guard: Guard) -> None:
    there = guard(remote_fail_open=True)
    there.server.faults = ["down"]
    assert there.classify(1).status_code == 503


def test_failing_open_still_rejects_what_was_found(guard: Guard) -> None:
    """The first detector has looked, the second could not: suspicious images stay rejected."""
    there = guard(remote_fail_open=True, detectors=("spc", "nspc"))
    before = there.classify(24).json()["results"]
    suspicious = [each["detections"][0]["suspicious"] for each in before]
    assert any(suspicious)
    other = guard("probabilities", remote_fail_open=True, detectors=("spc", "profile"))
    whole = other.classify(24).json()["results"]
    found = [each["detections"][0]["suspicious"] for each in whole]
    other.server.requests.clear()
    stages = len(other.firewall.guard.watches[0].scorer.stages)
    # The profile is asked last, in a request of six copies of every image.
    honest = other.server.answer

    def no_profile(images: np.ndarray) -> np.ndarray:
        answered = honest(images)
        return answered[:-1] if len(other.server.requests) > 1 + stages or len(images) == 6 * 24 else answered

    other.server.answer = no_profile
    results = other.classify(24).json()["results"]
    assert [each["verdict"] == "rejected" for each in results] == found
    assert {each["verdict"] for each in results} <= {"rejected", "uninspected"}


def test_settings_that_contradict_the_watchdog(make_settings: MakeSettings) -> None:
    with pytest.raises(ValueError, match="remote_timeout_s must be less than stuck_after_s"):
        make_settings(remote_timeout_s=120, stuck_after_s=60)
