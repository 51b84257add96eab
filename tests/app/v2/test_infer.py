"""POST /v2/models/{m}/infer of a calibrated gateway: what goes in, what comes out, what is withheld."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from app.assembly import build_firewall
from tests.app.conftest import MakeClient, MakeSettings
from tests.app.tiny import encoded, form, pixels, pngs
from tests.app.v2.conftest import URL, binary_request, json_request

PARTIAL = {"parameters": {"partial": True}}


@pytest.fixture
def verdicts(calibrated: TestClient) -> list[dict[str, Any]]:
    """What /classify says of the 24 images with seed 3."""
    results: list[dict[str, Any]] = calibrated.post("/classify", files=form(pngs(24, seed=3))).json()[
        "results"
    ]
    found = {result["verdict"] for result in results}
    assert found == {"accepted", "rejected"}
    return results


def outputs(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def spoken(verdicts: list[dict[str, Any]]) -> list[int]:
    """The labels that a caller of `partial` has to read."""
    return [result["prediction"]["label"] if result["prediction"] else -1 for result in verdicts]


def ways(images: np.ndarray) -> dict[str, dict[str, Any]]:
    """The same (B, 8, 8) bytes in every form that a client may choose, as arguments of `post`."""
    batch, floats = images[:, None], images[:, None].astype("<f4") / np.float32(255)
    files = [encoded(image) for image in images]
    elements = b"".join(struct.pack("<I", len(file)) + file for file in files)
    last = floats.transpose(0, 2, 3, 1)
    return {
        "fp32 nchw json": {"json": json_request(floats, "FP32", **PARTIAL)},
        "fp32 nchw binary": binary_request(floats.tobytes(), "FP32", [*batch.shape], **PARTIAL),
        "fp32 nhwc json": {"json": json_request(last, "FP32", **PARTIAL)},
        "flat data": {"json": json_request(floats.ravel(), "FP32", [*batch.shape], **PARTIAL)},
        "uint8 nchw json": {"json": json_request(batch, "UINT8", **PARTIAL)},
        "uint8 nhwc binary": binary_request(images.tobytes(), "UINT8", [*images.shape, 1], **PARTIAL),
        "png binary": binary_request(elements, "BYTES", [len(files)], **PARTIAL),
        "png base64": {
            "json": json_request([base64.b64encode(f).decode() for f in files], "BYTES", **PARTIAL)
        },
    }


def test_every_form_of_the_same_images_gets_the_verdicts_of_classify(
    calibrated: TestClient, verdicts: list[dict[str, Any]]
) -> None:
    for way, request in ways(pixels(24, seed=3)).items():
        found = outputs(calibrated.post(URL, **request))
        assert found["verdict"] == [result["verdict"] for result in verdicts], way
        assert found["label"] == spoken(verdicts), way
        score = [result["detections"][0]["score"] for result in verdicts]
        assert found["score"] == pytest.approx(score), way
        assert found["p_value"] == [result["detections"][0]["p_value"] for result in verdicts], way


def test_a_rejected_row_says_nothing_of_its_image(
    calibrated: TestClient, verdicts: list[dict[str, Any]], make_settings: MakeSettings
) -> None:
    found = outputs(calibrated.post(URL, **ways(pixels(24, seed=3))["fp32 nchw json"]))
    images = pixels(24, seed=3)[:, None].astype(np.float32) / np.float32(255)
    truth = build_firewall(make_settings()).classifier.logits(torch.from_numpy(images)).softmax(1).numpy()
    rows = np.array(found["probabilities"]).reshape(24, 4)
    for row, verdict, expected in zip(rows, verdicts, truth, strict=True):
        if verdict["verdict"] == "rejected":
            assert row.tolist() == [0, 0, 0, 0]
        else:
            assert row == pytest.approx(expected, rel=1e-5)


def test_without_partial_a_rejected_row_fails_the_batch_and_names_itself(
    calibrated: TestClient, verdicts: list[dict[str, Any]]
) -> None:
    rejected = [row for row, result in enumerate(verdicts) if result["verdict"] == "rejected"]
    batch = pixels(24, seed=3)[:, None]
    answer = calibrated.post(URL, json=json_request(batch, "UINT8"))
    assert answer.status_code == 403
    body = answer.json()
    assert body["rows"] == rejected
    assert body["error"] == body["detail"]
    assert f"{', '.join(map(str, rejected[:20]))}" in body["error"]
    assert body["type"] == "urn:triggerwall:problem:rejected"
    accepted = [row for row in range(24) if row not in rejected]
    found = outputs(calibrated.post(URL, json=json_request(batch[accepted], "UINT8")))
    assert found["label"] == [label for label in spoken(verdicts) if label >= 0]


def test_requested_outputs_come_in_their_order_as_json_or_bytes(calibrated: TestClient) -> None:
    names = [
        {"name": "verdict", "parameters": {"binary_data": True}},
        {"name": "label"},
        {"name": "probabilities", "parameters": {"binary_data": True}},
    ]
    request = json_request(pixels(3)[:, None], "UINT8", id="mine", outputs=names, **PARTIAL)
    answer = calibrated.post(URL, json=request)
    end = int(answer.headers["Inference-Header-Content-Length"])
    head, rest = json.loads(answer.content[:end]), answer.content[end:]
    assert (head["id"], head["model_name"], head["model_version"]) == ("mine", "tiny", "0")
    assert [output["name"] for output in head["outputs"]] == ["verdict", "label", "probabilities"]
    assert [output["shape"] for output in head["outputs"]] == [[3], [3], [3, 4]]
    sizes = [output.get("parameters", {}).get("binary_data_size") for output in head["outputs"]]
    assert sizes[1:] == [None, 3 * 4 * 4]
    assert sum(size or 0 for size in sizes) == len(rest)
    labels = head["outputs"][1]["data"]
    probabilities = np.frombuffer(rest[sizes[0] :], "<f4").reshape(3, 4)
    accepted = [row for row, label in enumerate(labels) if label >= 0]
    assert probabilities[accepted].argmax(1).tolist() == [labels[row] for row in accepted]
    (length,) = struct.unpack("<I", rest[:4])
    assert rest[4 : 4 + length].decode() in ("accepted", "rejected")


def test_all_outputs_as_bytes_by_the_request_parameter(calibrated: TestClient) -> None:
    request = json_request(
        pixels(2)[:, None], "UINT8", parameters={"partial": True, "binary_data_output": True}
    )
    answer = calibrated.post(URL, json=request)
    head = json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])
    assert all("data" not in output for output in head["outputs"])
    assert len(head["outputs"]) == 5


def test_monitor_mode_flags_and_answers(make_client: MakeClient) -> None:
    found = outputs(make_client(mode="monitor").post(URL, json=json_request(pixels(4)[:, None], "UINT8")))
    assert found["verdict"] == ["flagged"] * 4  # nothing is calibrated
    assert all(label >= 0 for label in found["label"])
    assert found["p_value"] == [None] * 4


def test_tensors_of_another_size_are_resized_like_the_same_png(make_client: MakeClient) -> None:
    client = make_client(mode="monitor")
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 13), dtype=np.uint8)
    found = outputs(client.post(URL, json=json_request(images[:, None], "UINT8")))
    results = client.post("/classify", files=form([encoded(image) for image in images])).json()["results"]
    confidences = [result["prediction"]["confidence"] for result in results]
    assert np.array(found["probabilities"]).reshape(3, 4).max(1) == pytest.approx(confidences, rel=1e-5)
    floats = outputs(client.post(URL, json=json_request(images[:, None] / 255, "FP32")))
    # Floats are not rounded to bytes after resizing; nothing else differs.
    assert floats["probabilities"] == pytest.approx(found["probabilities"], abs=0.2)


def test_an_image_that_cannot_be_read_is_named_and_under_partial_loses_only_itself(
    calibrated: TestClient,
) -> None:
    files = [*pngs(2, seed=3), b"no image"]
    data = [base64.b64encode(file).decode() for file in files]
    answer = calibrated.post(URL, json=json_request(data, "BYTES"))
    assert (answer.status_code, answer.json()["rows"]) == (400, [2])
    found = outputs(calibrated.post(URL, json=json_request(data, "BYTES", **PARTIAL)))
    assert (found["verdict"][2], found["label"][2]) == ("unreadable", -1)
    assert found["verdict"][:2] == [
        result["verdict"] for result in calibrated.post("/classify", files=form(files)).json()["results"][:2]
    ]


def test_before_calibration_nothing_leaves(client: TestClient) -> None:
    answer = client.post(URL, json=json_request(pixels(1)[:, None], "UINT8"))
    assert answer.status_code == 503
    assert "calibrate" in answer.json()["error"]
