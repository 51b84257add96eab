"""Who may do and know what: keys, quotas, coarse answers, the admin's own port, headers."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import PNG, slug
from tests.app.tiny import encoded, form, pixels, pngs

ADMIN = {"X-API-Key": "root"}
SHOP = {"X-API-Key": "s1"}


def calibrated(make_client: MakeClient, **settings: Any) -> TestClient:
    client = make_client(**settings)
    assert client.post("/calibrate", files=form(pngs(40, seed=1)), headers=ADMIN).status_code == 201
    return client


def detections(client: TestClient, headers: dict[str, str] | None = None) -> list[list[dict[str, Any]]]:
    answer = client.post("/classify", files=form(pngs(64, seed=7)), headers=headers)
    assert answer.status_code == 200, answer.text
    return [result["detections"] for result in answer.json()["results"]]


class TestScores:
    def test_are_coarse_without_the_admin_key(self, make_client: MakeClient) -> None:
        client = calibrated(make_client, admin_key="root", detectors=("profile", "psc", "spc"), alpha=0.4)
        exact, told = detections(client, ADMIN), detections(client)
        assert len({found["score"] for each in exact for found in each}) > 60
        seen = {tuple(found.values()) for each in told for found in each}
        assert seen <= {
            (name, 1 - p, None, p, p == 0, False)
            for name in ("profile", "psc", "spc")
            for p in (0.0, 0.1, 0.5, 1.0)
        }
        assert len({values[1:] for values in seen}) > 2
        flags = [[[found["suspicious"] for found in each] for each in side] for side in (exact, told)]
        assert flags[0] == flags[1]
        assert client.get("/info").json()["scores"] == "coarse"
        assert client.get("/info", headers=ADMIN).json()["scores"] == "exact"

    def test_a_wrong_key_is_told_no_more_than_none(self, make_client: MakeClient) -> None:
        client = calibrated(make_client, admin_key="root")
        assert detections(client, {"X-API-Key": "guess"}) == detections(client)

    def test_may_be_opened(self, make_client: MakeClient) -> None:
        client = calibrated(make_client, admin_key="root", open_scores=True)
        assert detections(client) == detections(client, ADMIN)
        assert client.get("/info").json()["scores"] == "exact"

    def test_are_exact_on_loopback_without_a_key(self, make_client: MakeClient) -> None:
        client = calibrated(make_client)
        assert len({found["threshold"] for (found,) in detections(client)} - {None}) >= 1
        assert client.get("/info").json()["scores"] == "exact"
        client.base_url = "http://evil.example"  # type: ignore[assignment]
        assert {found["threshold"] for (found,) in detections(client)} == {None}

    def test_evidence_of_drift_is_the_admins(self, make_client: MakeClient) -> None:
        client = calibrated(make_client, admin_key="root")
        detections(client)
        assert client.get("/info", headers=ADMIN).json()["drift"]["evidence"]
        assert client.get("/info").json()["drift"]["evidence"] == {}


class TestCallerKeys:
    KEYS = "shop:s1, app:s2"

    def test_are_needed_where_there_are_any(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", admin_key="root", caller_keys=self.KEYS)
        for headers, status in ((None, 401), ({"X-API-Key": "s"}, 401), (SHOP, 200), (ADMIN, 200)):
            answer = client.post("/classify", files=form(pngs(1)), headers=headers)
            assert answer.status_code == status, headers
        assert slug(client.post("/classify", files=form(pngs(1)))) == "unauthorized"
        assert client.get("/info").json()["key_needed"] is True
        assert client.get("/livez").status_code == 200

    def test_open_no_admin_path(self, make_client: MakeClient) -> None:
        client = make_client(admin_key="root", caller_keys=self.KEYS)
        assert client.post("/calibrate", files=form(pngs(3)), headers=SHOP).status_code == 401
        assert client.post("/classify?full=true", files=form(pngs(1)), headers=SHOP).status_code == 401
        assert client.get("/info", headers=SHOP).json()["scores"] == "coarse"


class TestQuota:
    def test_429_says_when_to_come_again(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", rate_limit=0.01, rate_burst=3, caller_keys="shop:s1,app:s2")
        assert client.post("/classify", files=form(pngs(2)), headers=SHOP).status_code == 200
        assert (
            client.post("/classify", files=form(pngs(2)), headers=SHOP).status_code == 200
        )  # one to pay back
        answer = client.post("/classify", files=form(pngs(1)), headers=SHOP)
        assert (answer.status_code, slug(answer)) == (429, "rate-limited")
        assert 195 <= int(answer.headers["retry-after"]) <= 200  # from -1 to 1 at one in 100 s
        assert client.post("/classify", files=form(pngs(1)), headers={"X-API-Key": "s2"}).status_code == 200
        assert 'problems_total{type="rate-limited"} 1.0' in client.get("/metrics").text

    def test_the_admin_key_has_none_and_an_address_has(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", rate_limit=0.01, rate_burst=1, admin_key="root")
        assert [client.post("/classify", files=form(pngs(1))).status_code for _ in range(2)] == [200, 429]
        for _ in range(3):
            assert client.post("/classify", files=form(pngs(1)), headers=ADMIN).status_code == 200

    def test_broken_images_count_too(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", rate_limit=0.01, rate_burst=1)
        assert client.post("/classify", content=b"broken", headers=PNG).status_code == 422
        assert client.post("/classify", content=b"broken", headers=PNG).status_code == 429


def test_runs_of_near_duplicates_are_counted_and_logged(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(mode="monitor", near_duplicate_run=8, caller_keys="shop:s1")
    image = pixels(1)[0]
    with caplog.at_level(logging.WARNING, "triggerwall.gateway"):
        for n in range(12):
            image[7, 7] = 20 * n
            client.post("/classify", content=encoded(image), headers={**PNG, **SHOP})
    text = client.get("/metrics").text
    assert "triggerwall_near_duplicate_images_total 11.0" in text
    assert "triggerwall_near_duplicate_runs_total 1.0" in text
    told = [record.message for record in caplog.records if "near-duplicate" in record.message]
    assert told == [
        "a run of near-duplicate images from key shop: somebody may be searching for one that passes"
    ]
    assert "s1" not in text
    assert "shop" not in text


class TestAdminPort:
    PUBLIC = ("/classify", "/info", "/livez", "/readyz")

    def test_the_public_port_does_not_know_the_others(self, make_client: MakeClient) -> None:
        client = make_client(admin_port=9001)
        for method, path in (
            ("GET", "/metrics"), ("GET", "/calibrations"), ("POST", "/calibrate"), ("POST", "/mode"),
            ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/docs/start.js"), ("GET", "/livez/"),
        ):  # fmt: skip
            answer = client.request(method, path, follow_redirects=False)
            assert (answer.status_code, answer.json()["type"]) == (404, "about:blank"), path
        for path in self.PUBLIC:
            assert client.get(path).status_code in (200, 405, 503), path

    def test_the_admin_port_knows_all_and_needs_no_key_on_loopback(self, make_client: MakeClient) -> None:
        client = make_client(admin_port=9001, host="0.0.0.0")
        assert client.get("/info").json()["scores"] == "coarse"
        client.base_url = "http://127.0.0.1:9001"  # type: ignore[assignment]
        assert client.post("/calibrate", files=form(pngs(40))).status_code == 201
        assert client.get("/metrics").status_code == 200
        assert client.get("/docs").status_code == 200
        assert client.get("/info").json()["scores"] == "exact"

    def test_another_address_needs_the_key(self, make_client: MakeClient) -> None:
        client = make_client(admin_port=9001, admin_host="0.0.0.0")
        client.base_url = "http://127.0.0.1:9001"  # type: ignore[assignment]
        assert client.post("/calibrate", files=form(pngs(3))).status_code == 403


class TestHeaders:
    def test_cors_is_off(self, client: TestClient) -> None:
        origin = {"Origin": "https://evil.example"}
        asked = {
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-api-key",
        }
        answers = [
            client.get("/info", headers=origin),
            client.options("/calibrate", headers=asked),
            client.post("/classify", files=form(pngs(1)), headers=origin),
        ]
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answers[1].status_code == 405

    def test_nothing_is_sniffed(self, client: TestClient) -> None:
        for path in ("/info", "/metrics", "/nothing", "/docs", "/openapi.json"):
            assert client.get(path).headers["x-content-type-options"] == "nosniff", path

    def test_pages_are_confined(self, make_client: MakeClient) -> None:
        client = calibrated(make_client)
        id = client.get("/calibrations").json()["active"]
        for path in ("/docs", f"/calibrations/{id}/report"):
            headers = client.get(path).headers
            assert headers["content-type"].startswith("text/html")
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert (headers["referrer-policy"], headers["x-frame-options"]) == ("no-referrer", "DENY")

    def test_the_docs_load_everything_from_here(self, client: TestClient) -> None:
        page = client.get("/docs").text
        assert "http" not in page
        assert "<script>" not in page  # nothing inline: the policy would stop it
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
            assert f'"docs/{name}"' in page
            assert client.get(f"/docs/{name}").status_code == 200
        assert b"SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").content
        assert client.get("/docs/secret").status_code == 404
        assert client.get("/docs/..%2fmain.py").status_code == 404
        assert client.get("/redoc").status_code == 404


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_serve_listens_on_both_ports(bundle: Path, tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    settings = {
        "BUNDLE": bundle, "DATA_DIR": tmp_path, "PORT": ports[0], "ADMIN_PORT": ports[1], "MODE": "monitor",
        "DETECTORS": "spc", "DEVICE": "cpu",
    }  # fmt: skip
    variables = {f"TRIGGERWALL_{name}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-c", "from app.cli import main; main()", "serve"]
    process = subprocess.Popen(command, env={**os.environ, **variables, "OMP_NUM_THREADS": "1"})
    try:
        public, admin = (httpx.Client(base_url=f"http://127.0.0.1:{port}") for port in ports)
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                admin.get("/livez")
                break
            time.sleep(0.05)
        assert [each.get("/livez").status_code for each in (public, admin)] == [200, 200]
        assert [each.get("/metrics").status_code for each in (public, admin)] == [404, 200]
        assert [each.get("/info").json()["scores"] for each in (public, admin)] == ["coarse", "exact"]
        process.terminate()
        assert process.wait(30) in (0, -15)
    finally:
        process.kill()


def test_the_open_inference_protocol_keeps_the_same_rules(make_client: MakeClient) -> None:
    client = calibrated(make_client, admin_key="root", caller_keys="shop:s1", rate_limit=0.01, rate_burst=64)
    images = pixels(64, seed=7)[:, None] / 255
    asked = {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}
        ],
        "outputs": [{"name": "score"}, {"name": "p_value"}],
        "parameters": {"partial": True},
    }

    def infer(headers: dict[str, str]) -> httpx.Response:
        return client.post("/v2/models/tiny/infer", json=asked, headers=headers)

    assert infer({}).status_code == 401
    exact, coarse = (
        {each["name"]: set(each["data"]) for each in infer(headers).json()["outputs"]}
        for headers in (ADMIN, SHOP)
    )
    assert len(exact["p_value"]) > 4
    assert coarse["p_value"] <= {0.0, 0.1, 0.5, 1.0}
    assert coarse["score"] <= {1.0, 0.9, 0.5, 0.0}
    assert infer(SHOP).status_code == 429
    assert infer(ADMIN).status_code == 200
