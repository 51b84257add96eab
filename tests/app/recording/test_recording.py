"""What was judged over HTTP is kept, within a moment, and comes back through the admin's paths."""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from app.recording.recorder import Recorder
from app.recording.retention import Retention
from app.storage.decisions import Decision
from app.storage.errors import NumberTaken, StoreError
from tests.app.conftest import MakeClient
from tests.app.recording.test_writer import wait_for
from tests.app.routes.test_classify import gateway_of, slug
from tests.app.service import Service
from tests.app.tiny import encoded, form, pixels, pngs

PNG = {"Content-Type": "image/png"}


def watching(make_client: MakeClient, **settings: Any) -> TestClient:
    """A gateway that judges by the paper's fixed T and so rejects many; it writes at once."""
    return make_client(**{"thresholds": "fixed", "decision_flush_ms": 10, **settings})


def kept(client: TestClient, count: int, **asked: Any) -> list[dict[str, Any]]:
    """The decisions that are kept, once there are `count`; the newest first."""
    wait_for(lambda: len(client.get("/decisions", params=asked).json()["decisions"]) >= count)
    found: list[dict[str, Any]] = client.get("/decisions", params=asked).json()["decisions"]
    return found


def in_quarantine(client: TestClient, count: int) -> list[dict[str, Any]]:
    wait_for(lambda: client.get("/quarantine").json()["total"] >= count)
    found: list[dict[str, Any]] = client.get("/quarantine").json()["images"]
    return found


def send(client: TestClient, images: list[bytes], request_id: str = "r") -> list[dict[str, Any]]:
    answer = client.post("/classify", files=form(images), headers={"X-Request-ID": request_id})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def names(images: list[bytes]) -> list[str]:
    return [hashlib.sha256(image).hexdigest() for image in images]


class TestDecisions:
    def test_each_image_has_a_row_that_says_what_the_caller_was_told(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        images = pngs(12, seed=3)
        told = send(client, [*images[:5], b"no image", *images[5:]], "req-1")
        rows = sorted(kept(client, 12, request_id="req-1"), key=lambda row: row["place"])
        assert [row["place"] for row in rows] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
        assert [row["image_sha256"] for row in rows] == names(images)
        for row in rows:
            answer = told[row["place"]]
            assert row["verdict"] == answer["verdict"]
            assert row["detections"] == answer["detections"]
            if answer["prediction"] is not None:
                assert row["label"] == answer["prediction"]["label"]
                assert row["confidence"] == answer["prediction"]["confidence"]
        assert {row["verdict"] for row in rows} == {"accepted", "rejected"}
        assert {(row["mode"], row["calibration"]) for row in rows} == {("enforce", None)}
        assert client.get(f"/decisions/{rows[0]['id']}").json() == rows[0]

    def test_pages_counts_and_exports_agree(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        send(client, pngs(30, seed=3))
        rows = kept(client, 30)
        pages, before = [], None
        while before is not None or not pages:
            page = client.get(
                "/decisions", params={"limit": 7, **({"before": before} if before else {})}
            ).json()
            pages += page["decisions"]
            before = page["next"]
        assert pages == rows
        lines = client.get("/decisions/export").text.splitlines()
        assert [json.loads(line) for line in lines] == rows[::-1]
        counts = client.get("/decisions/traffic").json()["steps"]
        rejected = [row for row in rows if row["verdict"] == "rejected"]
        assert sum(step["images"].get("rejected", 0) for step in counts) == len(rejected) > 0
        shown = client.get("/decisions/scores", params={"detector": "spc", "bins": 5}).json()
        assert sum(shown["suspicious"]) == len(rejected)
        assert sum(shown["cleared"]) == 30 - len(rejected)
        label = rejected[0]["label"]
        some = client.get("/decisions", params={"verdict": "rejected", "label": label, "limit": 1000}).json()
        assert some["decisions"] == [row for row in rejected if row["label"] == label]

    def test_what_if(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        send(client, pngs(30, seed=3))
        suspicious = [row for row in kept(client, 30) if row["verdict"] == "rejected"]
        found = client.post("/decisions/what-if", json={"thresholds": {"spc": 2}}).json()["all"]
        assert found["decisions"] == 30
        assert found["suspicious"] == len(suspicious)
        assert found["at_least"] == 0
        found = client.post("/decisions/what-if", json={"thresholds": {"spc": -1}}).json()["all"]
        assert found["at_least"] == found["at_most"] == 30
        assert slug(client.post("/decisions/what-if", json={})) == "invalid-request"

    def test_another_budget_by_the_calibration_s_shares(self, calibrated: TestClient) -> None:
        gateway = gateway_of(calibrated)
        assert gateway.p_limits(0.2) == {"spc": pytest.approx(0.2)}
        send(calibrated, pngs(20, seed=9))
        p_values = [row["detections"][0]["p_value"] for row in kept(calibrated, 20)]
        found = calibrated.post("/decisions/what-if", json={"alpha": 0.2}).json()["all"]
        assert found["at_least"] <= sum(p <= 0.2 for p in p_values) <= found["at_most"]

    def test_off(self, make_client: MakeClient) -> None:
        client = watching(make_client, decisions=False)
        send(client, pngs(5))
        time.sleep(0.1)
        assert client.get("/decisions").json()["decisions"] == []
        info = client.get("/info").json()
        assert info["decisions"]["on"] is info["quarantine"]["on"] is False

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/decisions/1", 404),
            ("/decisions/99999999999999999999", 422),
            ("/decisions/9999999999999999999", 404),
            ("/decisions?limit=1001", 422),
            ("/decisions?verdict=maybe", 422),
            ("/decisions?since=yesterday", 422),
            ("/decisions?since=2026-01-01T00:00:00", 422),  # whose midnight?
            ("/decisions?label=-1", 422),
            ("/decisions/traffic?since=1999-01-01T00:00:00Z", 422),
            ("/decisions/scores?detector=nobody", 422),
            ("/quarantine?limit=501", 422),
            ("/quarantine/..%2F..%2Fetc%2Fpasswd", 404),
            ("/quarantine/" + "0" * 64, 404),
            ("/quarantine/" + "0" * 64 + "/image", 404),
            ("/quarantine/" + "A" * 64, 422),
            ("/incidents/1/picture?first_decision=1&last_decision=2", 404),
        ],
    )
    def test_what_makes_no_sense_is_said(self, client: TestClient, path: str, status: int) -> None:
        assert client.get(path).status_code == status

    @pytest.mark.parametrize(
        "path", ["/decisions", "/decisions/export", "/decisions/1", "/quarantine", "/incidents"]
    )
    def test_for_the_admin_alone(self, make_client: MakeClient, path: str) -> None:
        client = make_client(admin_key="s3cret")
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"X-API-Key": "s3cret"}).status_code in (200, 404)


class TestQuarantine:
    def test_rejected_images_are_kept_as_they_came(self, make_client: MakeClient, tmp_path: Path) -> None:
        client = watching(make_client)
        images = pngs(20, seed=3)
        told = send(client, images)
        rejected = [n for n, result in enumerate(told) if result["verdict"] == "rejected"]
        held = in_quarantine(client, len(rejected))
        assert {each["sha256"] for each in held} == {names(images)[n] for n in rejected}
        for n in rejected:
            answer = client.get(f"/quarantine/{names(images)[n]}/image")
            assert (answer.content, answer.headers["content-type"]) == (images[n], "image/png")
            assert "sandbox" in answer.headers["content-security-policy"]
        files = [path for path in (tmp_path / "data" / "quarantine").rglob("*") if path.is_file()]
        assert len(files) == len(rejected)
        send(client, [images[rejected[0]]])
        wait_for(lambda: in_quarantine(client, len(rejected))[0]["times"] == 2)

    def test_a_sample_of_accepted_ones(self, make_client: MakeClient) -> None:
        client = watching(make_client, quarantine_sample=1.0)
        images = pngs(10, seed=3)
        send(client, images)
        assert len(in_quarantine(client, 10)) == 10

    def test_off_for_privacy(self, make_client: MakeClient, tmp_path: Path) -> None:
        client = watching(make_client, quarantine=False, quarantine_sample=1.0)
        send(client, pngs(10, seed=3))
        kept(client, 10)
        time.sleep(0.5)
        assert client.get("/quarantine").json()["total"] == 0
        assert not (tmp_path / "data" / "quarantine").exists()

    def test_images_that_no_detector_looked_at_are_not_suspected(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", decision_flush_ms=10)
        assert {each["verdict"] for each in send(client, pngs(3))} == {"flagged"}
        kept(client, 3)
        time.sleep(0.5)
        assert client.get("/quarantine").json()["total"] == 0
        assert client.get("/metrics").text.count("triggerwall_images_uninspected_total 3.0") == 1

    def test_what_an_image_shows_otherwise(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        send(client, pngs(20, seed=3))
        each = in_quarantine(client, 1)[0]
        found = client.get(f"/quarantine/{each['sha256']}/explanation").json()
        assert found["label"] == each["label"] != found["suggested_label"]["label"]
        assert 0 <= found["suggested_label"]["share"] <= 1
        assert [len(row) for row in found["sensitivity"]] == [7] * 7
        assert min(map(min, found["sensitivity"])) >= 0 < max(map(max, found["sensitivity"]))
        assert client.get(f"/quarantine/{'0' * 64}/explanation").status_code == 404

    def test_marks_and_removal(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        images = pngs(20, seed=3)
        send(client, images)
        some = [each["sha256"] for each in in_quarantine(client, 2)[:2]]
        answer = client.post(
            "/quarantine/marks", json={"images": [*some, "f" * 64], "mark": "trigger", "by": "<i>"}
        )
        assert answer.json() == {"marked": 2}
        facts = client.get(f"/quarantine/{some[0]}").json()
        assert (facts["mark"], facts["marked_by"], len(facts["reviews"])) == ("trigger", "<i>", 1)
        assert client.get("/quarantine?mark=trigger").json()["total"] == 2
        assert client.delete(f"/quarantine/{some[0]}").status_code == 204
        assert client.get(f"/quarantine/{some[0]}/image").status_code == 404
        assert client.delete(f"/quarantine/{some[0]}").status_code == 404
        bad = [
            {"images": [], "mark": None},
            {"images": ["../x"], "mark": None},
            {"images": some, "mark": "yes"},
        ]
        assert [client.post("/quarantine/marks", json=each).status_code for each in bad] == [422] * 3

    def test_a_folder_that_cannot_be_written_stops_nothing_and_is_said(
        self, make_client: MakeClient, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        client = watching(make_client, quarantine_url=str(tmp_path / "file" / "q"))
        images = pngs(20, seed=3)
        told = send(client, images)
        rejected = sum(result["verdict"] == "rejected" for result in told)
        wait_for(lambda: client.get("/info").json()["quarantine"]["dropped"] == rejected)
        state = client.get("/info").json()["quarantine"]
        assert state["on"]
        assert "Not a directory" in state["problem"]
        assert str(tmp_path) not in state["problem"]
        assert (
            f'quarantine_dropped_total{{reason="storage_failed"}} {rejected}.0' in client.get("/metrics").text
        )
        (tmp_path / "file").unlink()
        assert send(client, images) == told
        in_quarantine(client, rejected)
        assert client.get("/info").json()["quarantine"]["problem"] is None

    def test_retention_removes_files_and_rows(self, make_client: MakeClient, tmp_path: Path) -> None:
        client = watching(make_client, quarantine_images=2)
        send(client, pngs(20, seed=3))
        newest = [each["sha256"] for each in in_quarantine(client, 3)[:2]]
        sweep: Retention = gateway_of(client).recording.retention
        sweep.sweep()
        assert [each["sha256"] for each in client.get("/quarantine").json()["images"]] == newest
        files = {path.name for path in (tmp_path / "data" / "quarantine").rglob("*") if path.is_file()}
        assert files == set(newest)
        assert "triggerwall_quarantine_images 2.0" in client.get("/metrics").text


class TestIncidents:
    def test_rejections_of_one_label_and_their_average(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        images = pngs(40, seed=3)
        told = send(client, images)
        rejected = [n for n, result in enumerate(told) if result["verdict"] == "rejected"]
        in_quarantine(client, len(rejected))
        rows = {row["image_sha256"]: row for row in client.get("/decisions?limit=1000").json()["decisions"]}
        found = client.get("/incidents?least=1").json()["incidents"]
        assert sum(each["rejections"] for each in found) == len(rejected)
        one = max(found, key=lambda each: each["rejections"])
        assert one["name"] in ("dot", "line", "ring", "cross")
        answer = client.get(
            f"/incidents/{one['label']}/picture",
            params={"first_decision": one["first_decision"], "last_decision": one["last_decision"]},
        )
        its = [n for n in rejected if rows[names(images)[n]]["label"] == one["label"]]
        mean = pixels(40, seed=3)[its].astype(float).mean(axis=0)
        assert np.abs(np.asarray(Image.open(io.BytesIO(answer.content)), float) - mean).max() <= 0.5


class TestFailures:
    @pytest.fixture
    def failing(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[TestClient], None]:
        def fail(client: TestClient) -> None:
            def refuse(*_: Any) -> None:
                raise StoreError("the disk is full")

            monkeypatch.setattr(gateway_of(client).decisions, "add", refuse)

        return fail

    def test_a_database_that_fails_stops_nothing(
        self, make_client: MakeClient, failing: Callable[[TestClient], None]
    ) -> None:
        client = watching(make_client, decision_queue=64)
        failing(client)
        images = pngs(40, seed=3)
        for _ in range(6):
            assert len(send(client, images)) == 40
            time.sleep(0.05)
        state = client.get("/info").json()["decisions"]
        assert state["on"]
        assert state["dropped"] >= 80
        assert state["dropped"] % 40 == 0
        assert state["problem"] == "decisions cannot be written: StoreError"
        text = client.get("/metrics").text
        assert f'triggerwall_decisions_dropped_total{{reason="queue_full"}} {state["dropped"]}.0' in text

    def test_numbers_that_another_gateway_gave_are_drawn_again(
        self, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = watching(make_client)
        store, tried = gateway_of(client).decisions, []
        add = store.add

        def taken_once(batch: Sequence[Decision]) -> None:
            tried.append([each.id for each in batch])
            if len(tried) == 1:
                raise NumberTaken("another decision has the same number")
            add(batch)

        monkeypatch.setattr(store, "add", taken_once)
        send(client, pngs(3, seed=3))
        assert len(kept(client, 3)) == 3
        first, second = tried
        assert len({*first, *second}) == 6
        assert client.get("/info").json()["decisions"] == {"on": True, "dropped": 0, "problem": None}

    def test_recording_never_raises_into_the_answer(self, make_client: MakeClient) -> None:
        client = watching(make_client)
        recorder: Recorder = gateway_of(client).recording._recorder
        recorder.close()  # nobody takes anything any more
        assert len(send(client, pngs(3))) == 3


def test_a_killed_process_loses_at_most_the_last_moment(bundle: Path, tmp_path: Path) -> None:
    """SIGKILL while requests go on: what was answered a second before is there, once, and nothing is torn."""
    settings = {
        "bundle": bundle, "data_dir": tmp_path, "device": "cpu", "detectors": ["spc"], "thresholds": "fixed",
    }  # fmt: skip
    answered: list[tuple[float, str]] = []
    with Service(**settings) as service:
        end = time.monotonic() + 2.5
        number = 0
        while time.monotonic() < end:
            data = encoded(pixels(1, seed=number)[0])
            assert service.http.post("/classify", content=data, headers=PNG).status_code == 200
            answered.append((time.monotonic(), hashlib.sha256(data).hexdigest()))
            number += 1
        killed = time.monotonic()
        service.kill()
    with Service(**settings) as service:
        lines = service.http.get("/decisions/export").text.splitlines()
        held = service.http.get("/quarantine?limit=500").json()
        digests = [json.loads(line)["image_sha256"] for line in lines]
        assert len(digests) == len(set(digests))
        assert set(digests) >= {name for at, name in answered if at < killed - 1}
        for each in held["images"]:
            data = service.http.get(f"/quarantine/{each['sha256']}/image").content
            assert hashlib.sha256(data).hexdigest() == each["sha256"]
