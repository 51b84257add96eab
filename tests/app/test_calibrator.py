"""A full disk, a kill and a crowd: whatever happens to a calibration, the active one stays whole."""

import errno
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event

from app.forms import Form
from app.storage.database import FILE_NAME
from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import PNG, gateway_of, slug
from tests.app.service import Service
from tests.app.tiny import form, pngs

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def full(calibrated: TestClient) -> TestClient:
    """A calibrated gateway whose database may not grow any more: what SQLite meets on a full disk."""
    engine = gateway_of(calibrated).database.engine

    def no_room(connection: Any, _: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    event.listen(engine, "connect", no_room)
    engine.dispose()
    return calibrated


def judged_by(client: TestClient) -> str:
    return str(client.post("/classify", content=pngs(1)[0], headers=PNG).json()["calibration"])


def test_the_log_says_which_engine_each_detector_runs_on(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(detectors=["psc", "spc"], packed_weights=True)
    with caplog.at_level("INFO", "triggerwall.calibrator"):
        id = client.post("/calibrate", files=form(pngs(40))).json()["id"]
    engines = "psc by fork (3 layers folded, 3 convolutions packed); spc by one batch of scaled copies"
    assert f"calibration {id} is enforced: {engines}" in caplog.messages


def test_a_full_disk_leaves_the_active_calibration(full: TestClient, make_client: MakeClient) -> None:
    before = judged_by(full)
    exported = full.get(f"/calibrations/{before}/export").json()
    for _ in range(2):
        answer = full.post("/calibrate", files=form(pngs(2000, seed=3)))
        assert (answer.status_code, slug(answer)) == (503, "store-failed")
    assert full.get("/info").json()["calibrating"] is None
    assert judged_by(full) == before
    assert full.get("/readyz").status_code == 200
    assert [each["id"] for each in full.get("/calibrations").json()["calibrations"]] == [before]
    assert full.get(f"/calibrations/{before}/export").json() == exported
    directory = gateway_of(full).settings.data_dir
    with sqlite3.connect(directory / FILE_NAME) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = make_client()  # with room again
    assert judged_by(again) == before
    assert again.post("/calibrate", files=form(pngs(40, seed=4))).status_code == 201


def test_an_import_onto_a_full_disk(full: TestClient, make_client: MakeClient, tmp_path: Path) -> None:
    other = make_client(data_dir=tmp_path / "elsewhere")
    id = other.post("/calibrate", files=form(pngs(2000, seed=5))).json()["id"]
    data = other.get(f"/calibrations/{id}/export").content
    before = judged_by(full)
    answer = full.post("/calibrations/import?activate=true", content=data, headers=JSON)
    assert (answer.status_code, slug(answer)) == (503, "store-failed")
    assert judged_by(full) == before


def test_no_room_for_the_upload(calibrated: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    before = judged_by(calibrated)

    def append(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Form, "append", append)
    answer = calibrated.post("/calibrate", files=form(pngs(40)))
    assert (answer.status_code, slug(answer)) == (507, "no-room")
    assert "temporary files" in answer.json()["detail"]
    assert judged_by(calibrated) == before
    monkeypatch.undo()
    assert calibrated.post("/calibrate", files=form(pngs(40))).status_code == 201


@pytest.fixture
def kept(bundle: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a service whose data outlives it, and that measures in many small steps."""
    return {
        "bundle": bundle, "data_dir": tmp_path / "data", "device": "cpu", "alpha": 0.4,
        "detectors": ["spc"], "calibration_batch_images": 1,
    }  # fmt: skip


def calibrate(service: Service, count: int, seed: int, answers: list[Any]) -> None:
    """POST /calibrate on a connection of its own; the answer, or what broke it off, goes into `answers`."""
    try:
        answers.append(httpx.post(f"{service.url}/calibrate", files=form(pngs(count, seed)), timeout=250))
    except httpx.TransportError as error:
        answers.append(error)


def under_way(service: Service) -> dict[str, Any]:
    """The progress of a calibration that has measured something."""
    for _ in range(6000):
        progress: dict[str, Any] | None = service.http.get("/info").json()["calibrating"]
        if progress and progress["done"]:
            return progress
        time.sleep(0.01)
    raise TimeoutError("no calibration came under way")


def test_killed_in_the_middle_of_a_calibration(kept: dict[str, Any]) -> None:
    answers: list[Any] = []
    with Service(**kept) as service:
        first = service.http.post("/calibrate", files=form(pngs(40, 1))).json()["id"]
        sender = threading.Thread(target=calibrate, args=(service, 1500, 2, answers))
        sender.start()
        progress = under_way(service)
        assert (progress["stage"], progress["total"]) == ("measuring", 1500)
        service.kill()
        sender.join()
    assert isinstance(answers[0], httpx.TransportError)
    with Service(**kept) as service:
        history = service.http.get("/calibrations").json()
        assert (history["active"], len(history["calibrations"])) == (first, 1)
        body = service.http.post("/classify", content=pngs(1)[0], headers=PNG).json()
        assert body["calibration"] == first
        assert service.http.get("/info").json()["calibrating"] is None


def test_of_many_calibrations_at_once_one_is_made(kept: dict[str, Any]) -> None:
    """The others are told at once, and the one under way is not disturbed."""
    first: list[Any] = []
    others: list[Any] = []
    with Service(**kept) as service:
        sender = threading.Thread(target=calibrate, args=(service, 3000, 1, first))
        sender.start()
        under_way(service)
        crowd = [threading.Thread(target=calibrate, args=(service, 20, n, others)) for n in range(4)]
        for each in crowd:
            each.start()
        for each in (*crowd, sender):
            each.join()
        assert [answer.status_code for answer in others] == [409] * 4
        assert {answer.json()["type"] for answer in others} == {"urn:triggerwall:problem:calibration-busy"}
        assert first[0].status_code == 201
        history = service.http.get("/calibrations").json()
        assert (
            [each["id"] for each in history["calibrations"]] == [first[0].json()["id"]] == [history["active"]]
        )


def test_a_stored_fit_that_cannot_be_built_leaves_the_gateway_up_and_unready(
    calibrated: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade that reads fits differently: nothing is enforced, and nothing falls over."""
    gateway = gateway_of(calibrated)

    def unreadable(*_: Any) -> None:
        raise KeyError("means")

    monkeypatch.setattr(gateway.firewall, "prepare", unreadable)
    assert calibrated.portal is not None
    calibrated.portal.call(gateway.calibrator.restore)
    answer = calibrated.get("/readyz")
    assert (answer.status_code, slug(answer)) == (503, "calibration-mismatch")
    assert "cannot be used: KeyError('means')" in answer.json()["detail"]
    assert calibrated.post("/classify", content=pngs(1)[0], headers=PNG).status_code == 503
    assert calibrated.get("/livez").status_code == 200
