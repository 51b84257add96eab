"""From traffic without labels to enforcing: the learner, its paths, and the switch of the mode."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from app.assembly import build_firewall
from app.learner import BATCH, Learner
from app.policy import Mode
from app.worker import Worker
from detectors.base import CalibrationError
from tests.app.conftest import MakeClient, MakeSettings
from tests.app.routes.test_classify import gateway_of, slug
from tests.app.tiny import form, pixels, pngs

LEARNING: dict[str, Any] = {
    "mode": "monitor",
    "learn_from_traffic": True,
    "learn_sample": 1.0,
    "learn_images": 60,
    "detectors": ("profile",),
    "alpha": 0.1,
}


def send(client: TestClient, count: int, seed: int = 1) -> None:
    """In requests small enough that none of their images is passed over."""
    images = pngs(count, seed)
    for start in range(0, count, BATCH):
        assert client.post("/classify", files=form(images[start : start + BATCH])).status_code == 200
        until(lambda: not gateway_of(client).learner._waiting)  # type: ignore[union-attr]


def until(reached: Any) -> None:
    for _ in range(1000):
        if reached():
            return
        time.sleep(0.01)
    raise TimeoutError


def learning_of(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/info").json()["learning"]
    return found


def test_from_traffic_to_enforcing(make_client: MakeClient) -> None:
    client = make_client(**LEARNING)
    assert learning_of(client) == {
        "learning": True,
        "images": 0,
        "capacity": 60,
        "needed": 9,
        "measured": 0,
        "elsewhere": 0,
    }
    refused = client.post("/mode", json={"mode": "enforce"})
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    assert client.get("/info").json()["mode"] == "monitor"

    send(client, 80)
    until(lambda: learning_of(client)["measured"] == 80)
    assert learning_of(client)["images"] == 60

    answer = client.post("/calibrations/from-traffic", json={})
    assert answer.status_code == 201
    report = answer.json()
    assert (report["origin"], report["labelled"], report["alpha"], report["active"]) == (
        "traffic",
        False,
        0.1,
        True,
    )
    assert report["images"] + report["left_out"] == 60
    assert client.get(answer.headers["location"]).json() == report

    assert client.post("/mode", json={"mode": "enforce"}).json() == {"mode": "enforce"}
    assert 'triggerwall_mode{mode="enforce"} 1.0' in client.get("/metrics").text
    body = client.post("/classify", files=form(pngs(30, seed=9))).json()
    assert (body["mode"], body["calibration"]) == ("enforce", report["id"])
    assert {result["verdict"] for result in body["results"]} <= {"accepted", "rejected"}
    before = learning_of(client)
    assert before["learning"] is False
    assert before["measured"] == 80  # what is enforced is not learnt from

    client.post("/mode", json={"mode": "monitor"})
    body = client.post("/classify", files=form(pngs(30, seed=9))).json()
    assert body["mode"] == "monitor"
    assert all(result["prediction"] is not None for result in body["results"])


def test_what_is_learnt_is_what_would_be_measured(make_client: MakeClient) -> None:
    client = make_client(**LEARNING)
    send(client, 12)
    gateway = gateway_of(client)
    assert gateway.learner is not None
    until(lambda: gateway.learner.reservoir.seen == 12)  # type: ignore[union-attr]
    sample = gateway.learner.reservoir.sample()
    images = torch.from_numpy(pixels(12, 1) / np.float32(255))[:, None].float()
    expected = gateway.firewall.measure(images)
    assert sample.predicted.tolist() == expected.predicted.tolist()
    assert sample.evidence["profile"] == pytest.approx(expected.evidence["profile"], abs=1e-4)


def test_enforces_by_itself_where_the_setting_says_so(make_client: MakeClient) -> None:
    client = make_client(**LEARNING, enforce_after_learning=True)
    send(client, 80)
    until(lambda: client.get("/info").json()["mode"] == "enforce")
    info = client.get("/info").json()
    assert info["ready"]
    assert client.get(f"/calibrations/{info['calibration']['id']}").json()["origin"] == "traffic"


def test_waits_for_a_calibration_under_way(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.gateway.PATIENCE_S", 0.01)
    client = make_client(**LEARNING, enforce_after_learning=True)
    with gateway_of(client).calibrator.reserved():
        send(client, 60)
        until(lambda: learning_of(client)["images"] == 60)
        time.sleep(0.1)
        assert client.get("/info").json()["mode"] == "monitor"
    until(lambda: client.get("/info").json()["mode"] == "enforce")


def test_does_not_where_it_does_not(make_client: MakeClient) -> None:
    client = make_client(**LEARNING)
    send(client, 80)
    until(lambda: learning_of(client)["images"] == 60)
    info = client.get("/info").json()
    assert (info["mode"], info["calibration"]) == ("monitor", None)


def test_too_early(make_client: MakeClient) -> None:
    client = make_client(**LEARNING)
    nothing = client.post("/calibrations/from-traffic", json={})
    assert (nothing.status_code, slug(nothing)) == (422, "unusable-images")
    send(client, 5)
    until(lambda: learning_of(client)["measured"] == 5)
    few = client.post("/calibrations/from-traffic", json={"alpha": 0.01})
    assert (few.status_code, slug(few)) == (422, "calibration-refused")
    assert client.get("/calibrations").json()["calibrations"] == []


def test_a_detector_that_keeps_images_cannot_learn_from_traffic(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match="leave strip out"):
        make_client(**{**LEARNING, "detectors": ("profile", "strip")})


def test_too_few_images_to_learn_are_refused_at_start(make_client: MakeClient) -> None:
    with pytest.raises(ValueError, match=r"learn_images is 60, .* takes 99:"):
        make_client(**{**LEARNING, "alpha": 0.01})


def test_tries_again_on_more_traffic_where_what_was_learnt_is_refused(make_client: MakeClient) -> None:
    client = make_client(**LEARNING, enforce_after_learning=True)
    gateway = gateway_of(client)
    learn, tries = gateway.learn, []

    async def refused_once(*args: Any, **named: Any) -> Any:
        tries.append(gateway.learner.reservoir.seen)  # type: ignore[union-attr]
        if len(tries) == 1:
            raise CalibrationError("the network overflows")
        return await learn(*args, **named)

    gateway.learn = refused_once  # type: ignore[method-assign]
    send(client, 112)
    until(lambda: learning_of(client)["measured"] == 112)
    assert client.get("/info").json()["mode"] == "monitor"
    send(client, 16)
    until(lambda: client.get("/info").json()["mode"] == "enforce")
    assert tries == [64, 128]


def test_off_by_default(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    client.post("/classify", files=form(pngs(3)))
    assert client.get("/info").json()["learning"] is None
    answer = client.post("/calibrations/from-traffic", json={})
    assert (answer.status_code, slug(answer)) == (409, "conflict")
    assert "TRIGGERWALL_LEARN_FROM_TRAFFIC" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body", [{"alpha": 0}, {"alpha": 1}, {"contamination": 0.3}, {"activate": "maybe"}, {"aplha": 0.1}]
)
def test_what_makes_no_sense_is_refused(make_client: MakeClient, body: dict[str, Any]) -> None:
    answer = make_client(**LEARNING).post("/calibrations/from-traffic", json=body)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")


def test_admin_only(make_client: MakeClient) -> None:
    client = make_client(**LEARNING, admin_key="secret")
    for path, body in (("/mode", {"mode": "monitor"}), ("/calibrations/from-traffic", {})):
        assert client.post(path, json=body).status_code == 401
    assert client.post("/mode", json={"mode": "monitor"}, headers={"X-API-Key": "secret"}).status_code == 200
    assert client.post("/mode", json={"mode": "both"}, headers={"X-API-Key": "secret"}).status_code == 422


def test_traffic_is_passed_over_while_enough_waits_and_a_bad_batch_is_survived(
    make_settings: MakeSettings,
) -> None:
    """Nothing is measured while the device is busy; no more than two batches wait; learning goes on after
    a batch that could not be measured."""
    firewall = build_firewall(make_settings(mode=Mode.MONITOR))
    busy, failures = True, 1
    measure = firewall.measure

    def sometimes(images: torch.Tensor) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("out of memory")
        return measure(images)

    firewall.measure = sometimes  # type: ignore[method-assign]

    async def nothing() -> None:
        pass

    async def main() -> int:
        nonlocal busy
        worker = Worker()
        learner = Learner(firewall, worker, capacity=500, share=1.0, busy=lambda: busy, full=nothing, seed=0)
        learner.start()
        learner.offer(torch.rand(200, 1, 8, 8))
        assert len(learner._waiting) == 2 * BATCH
        await asyncio.sleep(0.05)
        assert learner.reservoir.seen == 0
        busy = False
        for _ in range(500):
            if learner.reservoir.seen:
                break
            await asyncio.sleep(0.01)
        firewall.switch(Mode.ENFORCE)
        learner.offer(torch.rand(20, 1, 8, 8))
        assert not learner._waiting
        await learner.close()
        worker.close()
        return learner.reservoir.seen

    assert asyncio.run(main()) == BATCH  # the other batch failed
