"""/info, /livez, /readyz, /metrics, /docs, and what every answer has."""

import json
import re
import time
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import PNG, slug
from tests.app.tiny import CLASSES, form, pngs


def test_info(client: TestClient) -> None:
    info = client.get("/info").json()
    assert info["model"]["labels"] == list(CLASSES)
    assert (info["model"]["classes"], info["model"]["size"], info["model"]["channels"]) == (4, [8, 8], 1)
    assert len(info["model"]["digest"]) == 64
    assert (info["mode"], info["ready"], info["calibration"], info["images_needed"]) == (
        "enforce",
        False,
        None,
        2,
    )
    assert info["detectors"] == [
        {
            "name": "spc",
            "needs": "labels",
            "settings": {"scales": [3, 5, 7, 9, 11]},
            "watching": False,
            "engine": None,
            "stages": None,
        }
    ]
    assert "POST at least 2 benign images" in info["reason"]


def test_a_device_that_does_not_return_is_told_to_liveness(make_client: MakeClient) -> None:
    client = make_client(stuck_after_s=1, remote_timeout_s=0.5)
    gateway = client.app.state.gateway  # type: ignore[attr-defined]
    gateway.worker._seats[0].began = time.monotonic() - 3
    answer = client.get("/livez")
    assert (answer.status_code, slug(answer)) == (503, "device-stuck")
    assert "has not returned for 3 s" in answer.json()["detail"]
    gateway.worker._seats[0].began = None
    assert client.get("/livez").status_code == 200


def test_lives_and_is_ready(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    answer = client.get("/readyz")
    assert (answer.status_code, slug(answer)) == (503, "not-calibrated")
    client.post("/calibrate", files=form(pngs(40)))
    assert client.get("/readyz").json() == {"status": "ready"}
    watching = client.get("/info").json()["detectors"][0]
    assert watching["watching"] is True
    assert watching["engine"] == "one batch of scaled copies"
    assert sorted(term for stage in watching["stages"] for term in stage) == [0, 1, 2, 3, 4]


def test_metrics_after_traffic(calibrated: TestClient) -> None:
    calibrated.post("/classify", files=form([*pngs(3), b"nonsense"]))
    calibrated.get("/calibrations/some-id")
    calibrated.get("/etc/passwd")
    calibrated.request("BREW", "/classify")
    answer = calibrated.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert "triggerwall_images_total 4.0" in lines
    assert 'triggerwall_image_errors_total{type="unreadable-image"} 1.0' in lines
    assert 'triggerwall_http_requests_total{method="POST",route="/classify",status="200"} 1.0' in lines
    assert (
        'triggerwall_http_requests_total{method="GET",route="/calibrations/{id}",status="404"} 1.0' in lines
    )
    assert 'triggerwall_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in lines
    assert 'triggerwall_http_requests_total{method="OTHER",route="/classify",status="405"} 1.0' in lines
    assert "triggerwall_batch_images_sum 3.0" in lines
    assert 'triggerwall_detection_score_count{detector="spc"} 3.0' in lines
    for stage in ("decode", "predict", "detect", "calibrate"):
        assert any(f'stage_duration_seconds_count{{stage="{stage}"}}' in line for line in lines), stage
    accepted, rejected = (
        float(re.search(rf'verdicts_total{{verdict="{v}"}} (\S+)', answer.text)[1])  # type: ignore[index]
        for v in ("accepted", "rejected")
    )
    assert accepted + rejected == 3


def test_nothing_of_a_request_becomes_a_label(client: TestClient) -> None:
    client.get("/canary-path", headers={"X-Request-ID": "canary-id"})
    client.post("/classify", content=b"canary", headers={"Content-Type": "canary/x"})
    assert "canary" not in client.get("/metrics").text


@pytest.mark.parametrize("sent", ["abc-1.2_X", "a" * 64])
def test_a_harmless_request_id_is_kept(client: TestClient, sent: str) -> None:
    assert client.get("/livez", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "a" * 65, "a b", "a\tb", "é", "<x>"])
def test_another_is_replaced(client: TestClient, sent: str) -> None:
    given = client.get("/livez", headers={"X-Request-ID": sent.encode()}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", given)


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    missing, wrong = client.get("/nothing"), client.get("/classify")
    assert (missing.status_code, missing.json()["type"], missing.json()["title"]) == (
        404,
        "about:blank",
        "Not Found",
    )
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.headers["content-type"] == "application/problem+json"


def test_the_document_describes_bodies_and_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    classify = document["paths"]["/classify"]["post"]
    assert set(classify["requestBody"]["content"]) == {"image/*", "multipart/form-data"}
    problem = classify["responses"]["503"]["content"]["application/problem+json"]["schema"]
    assert problem == {"$ref": "#/components/schemas/ProblemBody"}
    assert "ProblemBody" in document["components"]["schemas"]
    calibrate = document["paths"]["/calibrate"]["post"]
    assert calibrate["security"] == [{"APIKeyHeader": []}]
    assert "archive" in json.dumps(calibrate["requestBody"])
    assert client.get("/docs").status_code == 200
    for path in document["paths"].values():
        assert all(operation["summary"] and operation["tags"] for operation in path.values())


def test_two_gateways_in_one_process_count_for_themselves(make_client: MakeClient) -> None:
    one, two = make_client(mode="monitor"), make_client(mode="monitor")
    one.post("/classify", content=pngs(1)[0], headers=PNG)
    assert "triggerwall_images_total 1.0" in one.get("/metrics").text
    assert "triggerwall_images_total 0.0" in two.get("/metrics").text


def test_no_request_waits_for_a_thread_before_it_is_handled(
    calibrated: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither images nor probes queue up behind whatever keeps the threads busy."""

    async def refuse(function: Callable[..., object], *_: object) -> None:
        raise AssertionError(f"{function} is sent to a thread")

    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", refuse)
    (image,) = pngs(1)
    assert calibrated.post("/classify", content=image, headers=PNG).status_code == 200
    for path in ("/livez", "/readyz", "/info", "/calibrations", "/decisions", "/quarantine", "/console"):
        assert calibrated.get(path).status_code == 200, path
