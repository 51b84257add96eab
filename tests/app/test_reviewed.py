"""Marks flow back: false alarms into the next calibration, triggers into what it is scored on."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.storage.quarantine import HeldFilter, Mark
from tests.app.conftest import MakeClient
from tests.app.recording.test_recording import in_quarantine, send
from tests.app.routes.test_classify import gateway_of
from tests.app.tiny import form, pngs


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """Calibrated on 40 images, with rejected others in quarantine."""
    client = make_client(decision_flush_ms=10)
    assert client.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
    told = send(client, pngs(60, seed=2))
    in_quarantine(client, sum(each["verdict"] == "rejected" for each in told))
    return client


def mark(client: TestClient, count: int, mark: Mark) -> list[str]:
    """Mark the first unmarked images, and return their digests."""
    found = gateway_of(client).quarantine.page(HeldFilter(reviewed=False), limit=count).images
    digests = [each.sha256 for each in found]
    assert len(digests) == count
    gateway_of(client).quarantine.mark(digests, mark, "ada")
    return digests


def calibrate(client: TestClient, count: int = 40, **fields: str) -> dict[str, Any]:
    answer = client.post("/calibrate", files=form(pngs(count, seed=1), **fields))
    assert answer.status_code == 201, answer.text
    report: dict[str, Any] = answer.json()
    return report


def test_false_alarms_join_the_next_calibration_where_asked(client: TestClient) -> None:
    mark(client, 3, Mark.FALSE_ALARM)
    mark(client, 1, Mark.TRIGGER)
    assert calibrate(client)["images"] == 40
    assert calibrate(client, false_alarms="false")["images"] == 40
    report = calibrate(client, false_alarms="true")
    assert report["images"] == 43
    assert report["labelled"] is False
    labels = [str(n % 4) for n in range(40)]
    assert calibrate(client, false_alarms="true", labels=labels)["labelled"] is True
    bad = client.post("/calibrate", files=form(pngs(40), false_alarms="perhaps"))
    assert (bad.status_code, bad.json()["part"]) == (422, "false_alarms")


def test_an_image_whose_file_is_gone_is_left_out(client: TestClient) -> None:
    digests = mark(client, 2, Mark.FALSE_ALARM)
    gateway_of(client).recording.blobs.remove(digests[0])
    assert calibrate(client, false_alarms="true")["images"] == 41


def test_new_calibrations_are_scored_on_marked_triggers(client: TestClient) -> None:
    """The same benign images make the same thresholds, by which these images were rejected before."""
    assert calibrate(client)["regression"] is None
    digests = mark(client, 4, Mark.TRIGGER)
    report = calibrate(client)
    assert report["regression"] == {
        "images": 4, "stopped": 4, "unreadable": 0, "detectors": {"spc": 4}, "missed": [],
    }  # fmt: skip
    assert "of 4 images that were marked as triggers this calibration stops 4" in report["warnings"]
    gateway_of(client).recording.blobs.remove(digests[0])
    strict = calibrate(client, alpha="0.03")  # next to nothing is rejected at such a budget
    found = strict["regression"]
    assert (found["images"], found["unreadable"]) == (3, 1)
    assert len(found["missed"]) == 3 - found["stopped"] > 0
    assert set(found["missed"]) < set(digests)
    said = [each for each in strict["warnings"] if "marked as triggers" in each]
    assert said[0].endswith(f"stops {found['stopped']}, and lets {len(found['missed'])} pass")
    page = client.get(f"/calibrations/{strict['id']}/report").text
    assert said[0] in page
