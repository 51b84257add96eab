"""POST /classify: the contract, and every kind of bad input."""

import struct
import threading
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app.gateway import DeviceRequest, Gateway
from detectors.suggestion import suggest
from tests.app.conftest import MakeClient
from tests.app.tiny import CLASSES, encoded, form, pixels, pngs

PNG = {"Content-Type": "image/png"}


def gateway_of(client: TestClient) -> Gateway:
    gateway: Gateway = client.app.state.gateway  # type: ignore[attr-defined]
    return gateway


def slug(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    return str(problem["type"].rpartition(":")[2])


def test_one_image_as_the_body(calibrated: TestClient) -> None:
    image = pixels(1, seed=5)[0]
    answer = calibrated.post("/classify", content=encoded(image), headers=PNG)
    assert answer.status_code == 200
    body = answer.json()
    gateway = gateway_of(calibrated)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["model"] == {"name": "tiny", "version": "0"}
    assert body["mode"] == "enforce"
    assert body["calibration"] == gateway.calibrator.active.id  # type: ignore[union-attr]
    (result,) = body["results"]
    _, (expected,) = gateway.firewall.inspect(torch.from_numpy(image / np.float32(255))[None, None].float())
    assert set(result) == {"verdict", "prediction", "detections"}
    assert result["verdict"] == expected.verdict
    assert result["detections"] == [vars(found) for found in expected.detections]
    if expected.verdict == "accepted":
        assert result["prediction"]["label"] == expected.label
        assert result["prediction"]["name"] == CLASSES[expected.label]
        assert result["prediction"]["confidence"] == pytest.approx(expected.confidence, rel=1e-5)


def test_several_images_are_answered_in_order(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    images = pixels(20, seed=6)
    body = client.post("/classify", files=form([encoded(image) for image in images])).json()
    batch = torch.from_numpy(images / np.float32(255))[:, None].float()
    logits = gateway_of(client).firewall.classifier.logits(batch)
    assert [r["prediction"]["label"] for r in body["results"]] == logits.argmax(1).tolist()
    confidences = [r["prediction"]["confidence"] for r in body["results"]]
    assert confidences == pytest.approx(logits.softmax(1).amax(1).tolist(), rel=1e-4)
    assert len(set(confidences)) == 20  # each is its own image's


def test_rejected_images_have_no_prediction(calibrated: TestClient) -> None:
    """At a budget of 0.4 some of 64 images of noise are above the threshold."""
    body = calibrated.post("/classify", files=form(pngs(64, seed=7))).json()
    verdicts = {result["verdict"] for result in body["results"]}
    assert verdicts == {"accepted", "rejected"}
    for result in body["results"]:
        assert (result["prediction"] is None) == (result["verdict"] == "rejected")
        assert any(d["suspicious"] for d in result["detections"]) == (result["verdict"] == "rejected")


def test_monitor_mode_flags_and_still_answers(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    before = client.post("/classify", content=pngs(1)[0], headers=PNG).json()
    assert before["calibration"] is None
    assert before["results"][0]["verdict"] == "flagged"  # nobody looked at it
    assert before["results"][0]["prediction"] is not None
    assert before["results"][0]["detections"] == []
    assert client.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
    body = client.post("/classify", files=form(pngs(64, seed=7))).json()
    assert {result["verdict"] for result in body["results"]} == {"accepted", "flagged"}
    assert all(result["prediction"] for result in body["results"])


def test_before_any_calibration_the_operator_is_told_what_to_send(client: TestClient) -> None:
    answer = client.post("/classify", content=pngs(1)[0], headers=PNG)
    assert (answer.status_code, slug(answer)) == (503, "not-calibrated")
    assert "POST at least 2 benign images to /calibrate" in answer.json()["detail"]


def test_fixed_thresholds_need_no_calibration(make_client: MakeClient) -> None:
    client = make_client(thresholds="fixed")
    body = client.post("/classify", content=pngs(1)[0], headers=PNG).json()
    (found,) = body["results"][0]["detections"]
    assert (body["calibration"], found["threshold"], found["p_value"]) == (None, 0.5, None)


class TestFullScores:
    """`?full=true` turns early exits off, and tells an attacker more than verdicts do."""

    def test_needs_the_key(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", admin_key="secret")
        url = "/classify?full=true"
        assert client.post(url, content=pngs(1)[0], headers=PNG).status_code == 401
        wrong = client.post(url, content=pngs(1)[0], headers={**PNG, "X-API-Key": "wrong"})
        assert (wrong.status_code, slug(wrong)) == (401, "unauthorized")
        right = client.post(url, content=pngs(1)[0], headers={**PNG, "X-API-Key": "secret"})
        assert right.status_code == 200

    def test_the_settings_may_open_it(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor", admin_key="secret", open_scores=True)
        assert client.post("/classify?full=true", content=pngs(1)[0], headers=PNG).status_code == 200

    def test_every_score_is_exact_and_the_verdict_the_same(self, make_client: MakeClient) -> None:
        client = make_client(detectors=("psc", "spc"), alpha=0.4)
        assert client.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        files = form(pngs(64, seed=7))
        early, full = (
            client.post(f"/classify{q}", files=files).json()["results"] for q in ("", "?full=true")
        )
        assert all(d["exact"] for result in full for d in result["detections"])
        assert [r["verdict"] for r in early] == [r["verdict"] for r in full]


class TestSuggestedLabels:
    """What a suspicious image shows otherwise is for the admin."""

    def results(self, client: TestClient, key: str = "secret") -> list[dict[str, Any]]:
        answer = client.post("/classify", files=form(pngs(64, seed=7)), headers={"X-API-Key": key})
        found: list[dict[str, Any]] = answer.json()["results"]
        return found

    def calibrated(self, make_client: MakeClient, **settings: Any) -> TestClient:
        client = make_client(admin_key="secret", **settings)
        key = {"X-API-Key": "secret"}
        assert client.post("/calibrate", files=form(pngs(40, seed=1)), headers=key).status_code == 201
        return client

    def test_only_suspicious_images_have_one(self, make_client: MakeClient) -> None:
        client = self.calibrated(make_client)
        results = self.results(client)
        rejected = [place for place, each in enumerate(results) if each["verdict"] == "rejected"]
        assert 0 < len(rejected) < 64
        assert [place for place, each in enumerate(results) if "suggested_label" in each] == rejected
        classifier = gateway_of(client).firewall.classifier
        batch = torch.from_numpy(pixels(64, seed=7)).float()[:, None] / 255
        labels = classifier.logits(batch).argmax(1)
        expected = suggest(classifier, batch, labels)
        for place in rejected:
            found = results[place]["suggested_label"]
            assert found["label"] == expected.labels[place] != labels[place]
            assert found["name"] == CLASSES[found["label"]]
            assert found["share"] == pytest.approx(float(expected.shares[place]), abs=1e-5)

    def test_what_no_detector_has_looked_at_has_none(self, make_client: MakeClient) -> None:
        client = make_client(mode="monitor")  # never calibrated
        results = self.results(client)
        assert {each["verdict"] for each in results} == {"flagged"}
        assert not any("suggested_label" in each for each in results)

    def test_others_are_not_told(self, make_client: MakeClient) -> None:
        client = self.calibrated(make_client, open_scores=True)
        assert not any("suggested_label" in each for each in self.results(client, key=""))

    def test_none_while_much_waits_for_the_device(
        self, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = self.calibrated(make_client)
        assert any("suggested_label" in each for each in self.results(client))
        monkeypatch.setattr(gateway_of(client).batcher, "expected_wait", lambda: 0.2)
        assert not any("suggested_label" in each for each in self.results(client))

    def test_a_setting_turns_it_off(self, make_client: MakeClient) -> None:
        client = self.calibrated(make_client, suggest_labels=False)
        assert not any("suggested_label" in each for each in self.results(client))

    def test_where_it_fails_the_verdict_goes_out_all_the_same(
        self, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = self.calibrated(make_client)

        def fail(*_: Any) -> None:
            raise RuntimeError("no")

        before = self.results(client)
        monkeypatch.setattr("app.suggestions.suggest", fail)
        after = self.results(client)
        assert not any("suggested_label" in each for each in after)
        assert [each["verdict"] for each in after] == [each["verdict"] for each in before]


def bomb_png(side: int) -> bytes:
    """A PNG whose header promises side × side pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def animated() -> bytes:
    frames = [Image.fromarray(frame) for frame in pixels(3)]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


BAD = {
    "not an image": (b"<html>hello</html>", 422, "unreadable-image"),
    "truncated": (pngs(1)[0][:60], 422, "unreadable-image"),
    "empty": (b"", 422, "empty-image"),
    "bomb": (bomb_png(6000), 413, "image-too-large"),
    "bigger bomb": (bomb_png(60_000), 413, "image-too-large"),
    "animated": (animated(), 415, "unsupported-image"),
    "a format that is not allowed": (encoded(pixels(1)[0], "ICO"), 422, "unreadable-image"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_a_problem_as_the_body(make_client: MakeClient, name: str) -> None:
    data, status, kind = BAD[name]
    answer = make_client(mode="monitor").post("/classify", content=data, headers=PNG)
    assert (answer.status_code, slug(answer)) == (status, kind)


def test_bad_parts_get_an_error_and_the_others_an_answer(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    good = pngs(2)
    files = form([good[0], *(data for data, _, _ in BAD.values()), good[1]])
    answer = client.post("/classify", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["verdict"] for r in results] == ["flagged", *[None] * len(BAD), "flagged"]
    for result, (_, status, kind) in zip(results[1:-1], BAD.values(), strict=True):
        assert result["prediction"] is None
        assert result["detections"] == []
        assert result["error"]["status"] == status
        assert result["error"]["type"] == f"urn:triggerwall:problem:{kind}"
        assert set(result["error"]) == {"part", "type", "title", "status", "detail"}
    alone = client.post("/classify", content=good[1], headers=PNG).json()["results"][0]
    assert results[-1]["prediction"]["label"] == alone["prediction"]["label"]
    assert "error" not in results[-1]


def test_all_parts_bad_is_still_answered_image_by_image(make_client: MakeClient) -> None:
    answer = make_client(mode="monitor").post("/classify", files=form([b"", b"x"]))
    assert answer.status_code == 200
    assert [result["error"]["status"] for result in answer.json()["results"]] == [422, 422]


def test_a_part_that_says_it_is_no_image(make_client: MakeClient) -> None:
    files = [("images", ("a.txt", pngs(1)[0], "text/plain")), ("images", ("b.png", pngs(1)[0], "image/png"))]
    first, second = make_client(mode="monitor").post("/classify", files=files).json()["results"]
    assert first["error"]["status"] == 415
    assert second["prediction"] is not None


@pytest.mark.parametrize("kind", ["text/plain", "application/json", ""])
def test_wrong_content_type(calibrated: TestClient, kind: str) -> None:
    answer = calibrated.post("/classify", content=pngs(1)[0], headers={"Content-Type": kind})
    assert (answer.status_code, slug(answer)) == (415, "unsupported-media-type")


def test_an_opaque_content_type_is_looked_into(make_client: MakeClient) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    assert (
        make_client(mode="monitor").post("/classify", content=pngs(1)[0], headers=headers).status_code == 200
    )


def test_too_many_images(make_client: MakeClient) -> None:
    client = make_client(mode="monitor", max_images=3)
    assert client.post("/classify", files=form(pngs(3))).status_code == 200
    answer = client.post("/classify", files=form(pngs(4)))
    assert (answer.status_code, slug(answer)) == (413, "too-many-parts")
    assert answer.json()["part"] == "images"


def test_too_many_parts(make_client: MakeClient) -> None:
    client = make_client(mode="monitor", max_parts=5)
    answer = client.post("/classify", files=form(pngs(1), other=["x"] * 5))
    assert (answer.status_code, slug(answer)) == (413, "too-many-parts")


def test_body_too_large_by_its_declared_length(make_client: MakeClient) -> None:
    client = make_client(mode="monitor", max_body_bytes=2000)
    answer = client.post("/classify", content=b"x" * 2001, headers=PNG)
    assert (answer.status_code, slug(answer)) == (413, "body-too-large")


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=b"])
def test_body_too_large_by_what_comes(make_client: MakeClient, kind: str) -> None:
    def chunks() -> Any:  # without a Content-Length
        yield b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n'
        for _ in range(30):
            yield b"x" * 100

    client = make_client(mode="monitor", max_body_bytes=2000)
    answer = client.post("/classify", content=chunks(), headers={"Content-Type": kind})
    assert (answer.status_code, slug(answer)) == (413, "body-too-large")


def test_an_image_of_too_many_bytes_fails_alone(make_client: MakeClient) -> None:
    client = make_client(mode="monitor", max_image_bytes=200)
    large = encoded(np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8))
    first, second = client.post("/classify", files=form([large, pngs(1)[0]])).json()["results"]
    assert (first["error"]["status"], second["verdict"]) == (413, "flagged")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\nends early',
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\nX-Only: header\r\n\r\nx\r\n--b--\r\n",
    ],
)
def test_malformed_forms(calibrated: TestClient, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = calibrated.post("/classify", content=body, headers=headers)
    assert (answer.status_code, slug(answer)) == (400, "malformed-form")


def test_a_form_without_a_boundary(calibrated: TestClient) -> None:
    answer = calibrated.post("/classify", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, slug(answer)) == (400, "malformed-form")


def test_a_form_without_images(calibrated: TestClient) -> None:
    answer = calibrated.post("/classify", files=[("image", ("a.png", pngs(1)[0]))])
    assert (answer.status_code, slug(answer), answer.json()["part"]) == (422, "invalid-request", "images")


def test_a_parameter_that_is_no_boolean(calibrated: TestClient) -> None:
    answer = calibrated.post("/classify?full=perhaps", content=pngs(1)[0], headers=PNG)
    assert (answer.status_code, slug(answer)) == (422, "invalid-request")
    assert answer.json()["errors"][0]["at"] == "query.full"
    assert "perhaps" not in answer.text


def test_unusual_images_are_read(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    grey = Image.fromarray(pixels(1)[0])
    cmyk, palette = Image.new("CMYK", (9, 9), (1, 2, 3, 4)), Image.new("P", (9, 9), 3)
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = form(
        [
            encoded(grey.convert("RGBA")), encoded(cmyk, "JPEG"), encoded(palette), encoded(deep),
            encoded(Image.new("L", (1, 1), 7)), encoded(grey, "JPEG", exif=exif),
        ]
    )  # fmt: skip
    results = client.post("/classify", files=files).json()["results"]
    assert [result["verdict"] for result in results] == ["flagged"] * 6


def test_a_broken_classifier_says_nothing_of_itself(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(mode="monitor")
    gateway = gateway_of(client)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret path /etc/weights")

    monkeypatch.setattr(gateway.firewall, "inspect_apart", fail)
    answer = client.post("/classify", content=pngs(1)[0], headers={**PNG, "X-Request-ID": "mine-1"})
    assert (answer.status_code, slug(answer)) == (500, "internal-error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "mine-1"
    text = client.get("/metrics").text
    assert 'triggerwall_problems_total{type="internal-error"} 1.0' in text
    assert 'http_requests_total{method="POST",route="/classify",status="500"} 1.0' in text


def test_a_request_may_ask_for_less_time_than_the_gateway_gives(calibrated: TestClient) -> None:
    gateway: Any = gateway_of(calibrated)
    wait = threading.Event()
    inspect = gateway.firewall.inspect_apart

    def slow(*args: Any, **kwargs: Any) -> Any:
        wait.wait(10)
        return inspect(*args, **kwargs)

    gateway.firewall.inspect_apart = slow
    answer = calibrated.post("/classify", files=form(pngs(1)), headers={"X-Request-Timeout-Ms": "50"})
    wait.set()
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:triggerwall:problem:deadline-exceeded"
    gateway.firewall.inspect_apart = inspect
    assert calibrated.post("/classify", files=form(pngs(1))).status_code == 200
    for wrong in ("0", "-5", "soon"):
        answer = calibrated.post("/classify", files=form(pngs(1)), headers={"X-Request-Timeout-Ms": wrong})
        assert answer.status_code == 422, wrong


def test_exact_and_early_scores_may_share_a_batch(calibrated: TestClient) -> None:
    """Each image gets the scores that were asked for, with the images of the others around it."""
    gateway = gateway_of(calibrated)
    images = torch.from_numpy(pixels(6, seed=5) / np.float32(255))[:, None].float()
    requests = [
        DeviceRequest(images[:2], False),
        DeviceRequest(images[2:3], True),
        DeviceRequest(images[3:], False),
    ]
    together = gateway._inspect(requests)
    for request, (id, mode, _, inspections) in zip(requests, together, strict=True):
        alone_id, alone = gateway.firewall.inspect(request.images, full=request.full)
        assert (id, mode, inspections) == (alone_id, gateway.firewall.mode, alone)
    assert all(found.exact for each in together[1][3] for found in each.detections)
