"""The report page, comparison, export and import over HTTP."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import MakeClient
from tests.app.routes.test_calibrations import PNG, gateway_of, slug
from tests.app.tiny import form, pngs, write_bundle

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def exported(calibrated: TestClient) -> bytes:
    """The file of a calibration that a gateway with the same bundle made."""
    id = calibrated.get("/calibrations").json()["active"]
    return calibrated.get(f"/calibrations/{id}/export").content


def elsewhere(make_client: MakeClient, tmp_path: Path, **overrides: Any) -> TestClient:
    """Another gateway, with a store of its own."""
    return make_client(data_dir=tmp_path / "elsewhere", **overrides)


def resigned(data: bytes, **changes: Any) -> bytes:
    """The file with other fields of its calibration, and the digest that goes with them."""
    file = json.loads(data)
    file["calibration"].update(changes)
    text = json.dumps(file["calibration"], sort_keys=True, separators=(",", ":"))
    return json.dumps({**file, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


class TestExportAndImport:
    def test_what_is_carried_over_judges_the_same(
        self, calibrated: TestClient, exported: bytes, make_client: MakeClient, tmp_path: Path
    ) -> None:
        files = form(pngs(64, seed=7))
        before = calibrated.post("/classify", files=files).json()
        other = elsewhere(make_client, tmp_path)
        answer = other.post("/calibrations/import", content=exported, headers=JSON)
        assert (answer.status_code, answer.json()["active"]) == (201, False)
        assert answer.headers["location"] == f"/calibrations/{before['calibration']}"
        assert other.get("/readyz").status_code == 503  # kept, and not enforced unasked
        answer = other.post("/calibrations/import?activate=true", content=exported, headers=JSON)
        assert (answer.status_code, answer.json()["active"]) == (201, True)
        after = other.post("/classify", files=files).json()
        assert (after["calibration"], after["results"]) == (before["calibration"], before["results"])
        history = other.get("/calibrations").json()
        assert [each["reason"] for each in history["activations"]] == ["activated"]
        assert len(history["calibrations"]) == 1
        again = other.get(f"/calibrations/{after['calibration']}/export").content
        assert json.loads(again) == json.loads(exported)

    def test_activated_at_once(self, exported: bytes, make_client: MakeClient, tmp_path: Path) -> None:
        other = elsewhere(make_client, tmp_path)
        assert other.post("/calibrations/import?activate=1", content=exported, headers=JSON).json()["active"]
        assert other.get("/calibrations").json()["activations"][0]["reason"] == "imported"

    def test_the_file_is_for_people_too(self, calibrated: TestClient, exported: bytes) -> None:
        id = json.loads(exported)["calibration"]["id"]
        answer = calibrated.get(f"/calibrations/{id}/export")
        assert answer.headers["content-disposition"] == f'attachment; filename="calibration-{id}.json"'
        assert json.loads(exported)["format_version"] == 1

    def test_one_for_another_classifier_is_not_taken(
        self, exported: bytes, make_client: MakeClient, tmp_path: Path
    ) -> None:
        client = elsewhere(make_client, tmp_path, bundle=write_bundle(tmp_path / "other", seed=9))
        answer = client.post("/calibrations/import", content=exported, headers=JSON)
        assert (answer.status_code, slug(answer)) == (409, "conflict")
        assert "another classifier" in answer.json()["detail"]
        assert client.get("/calibrations").json()["calibrations"] == []

    def test_one_for_other_settings_is_not_taken(
        self, exported: bytes, make_client: MakeClient, tmp_path: Path
    ) -> None:
        client = elsewhere(make_client, tmp_path, spc_scales=(2, 3))
        answer = client.post("/calibrations/import", content=exported, headers=JSON)
        assert (answer.status_code, slug(answer)) == (409, "conflict")
        assert "other detector settings" in answer.json()["detail"]

    def test_an_imported_one_is_not_enforced_on_a_new_model_either(
        self,
        exported: bytes,
        make_client: MakeClient,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        old = elsewhere(make_client, tmp_path)
        assert old.post("/calibrations/import?activate=true", content=exported, headers=JSON).json()["active"]
        client = elsewhere(make_client, tmp_path, bundle=write_bundle(tmp_path / "other", seed=9))
        answer = client.get("/readyz")
        assert (answer.status_code, slug(answer)) == (503, "calibration-mismatch")
        info = client.get("/info").json()
        assert (info["ready"], info["calibration"]) == (False, None)
        assert "another classifier" in info["reason"]
        assert any("another classifier" in each.message for each in caplog.records)
        assert slug(client.post("/classify", content=pngs(1)[0], headers=PNG)) == "calibration-mismatch"

    def test_another_under_the_same_id_is_not_taken(self, calibrated: TestClient, exported: bytes) -> None:
        changed = resigned(exported, model_version="x")
        answer = calibrated.post("/calibrations/import", content=changed, headers=JSON)
        assert (answer.status_code, slug(answer)) == (409, "conflict")
        assert "another calibration is kept under the id" in answer.json()["detail"]

    def test_a_damaged_one_is_not_taken(self, client: TestClient, make_client: MakeClient) -> None:
        for data in (b"", b"{}", b"\x80\x04."):
            answer = client.post("/calibrations/import", content=data, headers=JSON)
            assert (answer.status_code, slug(answer)) == (422, "artefact-refused")
        assert slug(client.post("/calibrations/import", content=b"{}", headers=PNG)) == (
            "unsupported-media-type"
        )
        small = make_client(max_artefact_bytes=2000)
        answer = small.post("/calibrations/import", content=b"x" * 2001, headers=JSON)
        assert (answer.status_code, slug(answer)) == (413, "body-too-large")

    def test_one_that_could_not_judge_is_not_taken(self, make_client: MakeClient, tmp_path: Path) -> None:
        """Its digests are right, but what it learnt does not fit the detector: found by trying it."""
        client = make_client(detectors=("profile",))
        id = client.post("/calibrate", files=form(pngs(40))).json()["id"]
        data = client.get(f"/calibrations/{id}/export").content
        content = json.loads(data)["calibration"]["content"]
        content["detectors"][0]["fit"]["means"] = [[0.0, 1.0]]
        other = elsewhere(make_client, tmp_path, detectors=("profile",))
        answer = other.post("/calibrations/import", content=resigned(data, content=content), headers=JSON)
        assert (answer.status_code, slug(answer)) == (422, "artefact-refused")
        assert "cannot judge images" in answer.json()["detail"]
        assert other.get("/calibrations").json()["calibrations"] == []

    def test_one_that_would_not_look_at_everything_is_not_taken(
        self, make_client: MakeClient, tmp_path: Path
    ) -> None:
        client = make_client(detectors=("spc",), alpha=0.1)
        id = client.post("/calibrate", files=form(pngs(40))).json()["id"]
        data = client.get(f"/calibrations/{id}/export").content
        content = json.loads(data)["calibration"]["content"]
        content["detectors"][0]["stages"] = [[0]]
        other = elsewhere(make_client, tmp_path, detectors=("spc",))
        answer = other.post("/calibrations/import", content=resigned(data, content=content), headers=JSON)
        assert (answer.status_code, slug(answer)) == (422, "artefact-refused")
        assert "do not evaluate all of its terms" in answer.json()["detail"]

    @pytest.mark.parametrize("report", [{}, {"detectors": [{}]}, {"detectors": 7}])
    def test_one_whose_report_cannot_be_shown_is_not_taken(
        self, client: TestClient, exported: bytes, report: dict[str, Any]
    ) -> None:
        answer = client.post("/calibrations/import", content=resigned(exported, report=report), headers=JSON)
        assert (answer.status_code, slug(answer)) == (422, "artefact-refused")

    def test_only_the_admin_may(self, make_client: MakeClient) -> None:
        client = make_client(admin_key="secret")
        for answer in (
            client.get("/calibrations/a/export"),
            client.post("/calibrations/import", content=b"{}", headers=JSON),
        ):
            assert (answer.status_code, slug(answer)) == (401, "unauthorized")
        key = {"X-API-Key": "secret"}
        assert client.get("/calibrations/a/export", headers=key).status_code == 404
        answer = client.post("/calibrations/import", content=b"{}", headers={**JSON, **key})
        assert slug(answer) == "artefact-refused"


def test_compare(client: TestClient) -> None:
    first = client.post("/calibrate", files=form(pngs(40, 1))).json()["id"]
    second = client.post("/calibrate", files=form(pngs(60, 2), alpha="0.3")).json()["id"]
    found = client.get(f"/calibrations/{first}/compare/{second}").json()
    assert (found["a"]["id"], found["b"]["id"], found["a"]["fits"]) == (first, second, True)
    assert "the benign images go from 40 to 60" in found["differences"]
    assert "the false-positive budget goes from 40.00% to 30.00%" in found["differences"]
    assert [each["label"] for each in found["detectors"][0]["thresholds"]] == [0, 1, 2, 3]
    assert slug(client.get(f"/calibrations/{first}/compare/nothing")) == "unknown-calibration"


class Page(HTMLParser):
    """What is on a page: its tags, the addresses it names, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.styled: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.links += [named[name] or "" for name in ("src", "href", "action") if name in named]
        self.styled += [tag] if "style" in named else []

    def handle_data(self, data: str) -> None:
        self.words += data


class TestPage:
    def test_it_needs_nothing_else(self, calibrated: TestClient) -> None:
        id = calibrated.get("/calibrations").json()["active"]
        answer = calibrated.get(f"/calibrations/{id}/report")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        page = Page(answer.text)
        assert "script" not in page.tags
        assert page.links == ["#spc"]
        assert page.styled == []
        style = re.search("<style>(.*?)</style>", answer.text, re.DOTALL)[1]  # type: ignore[index]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert f"style-src 'sha256-{digest}'" in policy
        assert "http" not in style

    def test_it_says_what_the_report_says(self, calibrated: TestClient) -> None:
        id = calibrated.get("/calibrations").json()["active"]
        words = " ".join(Page(calibrated.get(f"/calibrations/{id}/report").text).words.split())
        report = calibrated.get(f"/calibrations/{id}").json()
        assert report["detectors"][0]["power"].partition(": ")[2][1:] in words
        assert f"{id}, active" in words
        for name in ("0 dot", "1 line", "2 ring", "3 cross", "budget 40"):
            assert name in words

    def test_names_cannot_become_markup(self, make_client: MakeClient, tmp_path: Path) -> None:
        labels = ["<script>alert(1)</script>", '"><img src=x>', "a & b", "{{ 7 * 7 }}"]
        client = make_client(bundle=write_bundle(tmp_path / "named", labels=labels))
        id = client.post("/calibrate", files=form([*pngs(40), b"x"])).json()["id"]
        text = client.get(f"/calibrations/{id}/report").text
        page = Page(text)
        assert not {"script", "img"} & set(page.tags)
        assert "49" not in re.findall(r"3 (\S+)", page.words)
        assert all(name in page.words for name in labels)  # in full, in the titles

    def test_an_unknown_one(self, calibrated: TestClient) -> None:
        answer = calibrated.get("/calibrations/nothing/report")
        assert (answer.status_code, slug(answer)) == (404, "unknown-calibration")


def test_info_says_how_far_a_calibration_is(client: TestClient) -> None:
    calibrator = gateway_of(client).calibrator
    assert client.get("/info").json()["calibrating"] is None
    with calibrator.reserved():
        assert client.get("/info").json()["calibrating"] == {"stage": "receiving", "done": 0, "total": None}
    assert client.get("/info").json()["calibrating"] is None
