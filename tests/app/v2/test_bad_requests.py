"""What is wrong with a request is told in `error`, and costs nobody else anything."""

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import MakeClient
from tests.app.tiny import pixels, pngs, write_bundle
from tests.app.v2.conftest import URL, binary_request, json_request

GOOD = pixels(2)[:, None]
FLOATS = GOOD / np.float32(255)
RAW = GOOD.tobytes()


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One gateway for all: none of these requests may change it."""
    chosen = Settings(
        bundle=write_bundle(tmp_path_factory.mktemp("bundle")),
        data_dir=tmp_path_factory.mktemp("data"),
        device="cpu",
        mode="monitor",
        detectors=("spc",),
        max_body_bytes=50_000,
        max_images=8,
        max_pixels=4096,
    )
    with TestClient(create_app(chosen), base_url="http://127.0.0.1") as client:
        yield client


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"  # else KServe's client does not read it
    body = answer.json()
    assert body["error"] == body["detail"]
    for word in words:
        assert word in body["error"], body["error"]


def with_pixel(value: float) -> np.ndarray:
    floats = FLOATS.copy()
    floats[1, 0, 3, 3] = value
    return floats


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no inputs": ({}, ("`inputs` is not a list",)),
    "no tensor": ({"inputs": []}, ("one input tensor",)),
    "two tensors": ({"inputs": json_request(GOOD, "UINT8")["inputs"] * 2}, ("one input tensor", "not 2")),
    "tensor is no object": ({"inputs": [3]}, ("inputs[0] is not an object",)),
    "no name": ({"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}, ("no `name`",)),
    "unknown datatype": (json_request(GOOD, "FLOAT"), ("'FLOAT' is no datatype", "FP32")),
    "untaken datatype": (json_request(GOOD, "INT64"), ("INT64", "FP32", "UINT8")),
    "negative size": (json_request(GOOD, "UINT8", [2, 1, -8, -8]), ("`shape`",)),
    "size is text": (json_request(GOOD, "UINT8", ["2", 1, 8, 8]), ("`shape`",)),
    "size is true": (json_request(GOOD, "UINT8", [True, 1, 8, 8]), ("`shape`",)),
    "huge shape": (json_request(GOOD, "UINT8", [2**62, 2**62, 8, 8]), ("elements",)),
    "three axes": (json_request(GOOD[0], "UINT8"), ("[1, 8, 8]", "[B, 1, H, W]")),
    "three channels": (json_request(np.zeros((1, 3, 8, 8), int), "UINT8"), ("[1, 3, 8, 8]",)),
    "no images": (json_request([], "UINT8", [0, 1, 8, 8]), ("0 images",)),
    "no pixels": (json_request([], "UINT8", [2, 1, 0, 8]), ("pixels are taken",)),
    "too many images": (json_request(np.zeros((9, 1, 8, 8), int), "UINT8"), ("9 images", "8")),
    "too many pixels": (json_request(np.zeros((1, 1, 65, 64), int), "UINT8"), ("64×65", "4096")),
    "shape lies": (json_request(GOOD, "UINT8", [2, 1, 8, 9]), ("144 elements", "128")),
    "no data": ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, ("neither `data`",)),
    "data is a number": (json_request(3, "FP32", [1]), ("`data` is not a list",)),
    "ragged": (json_request([[1, 2], [3]], "FP32", [3]), ("unevenly",)),
    "text in data": (json_request(["1"] * 64, "FP32", [1, 1, 8, 8]), ("no FP32",)),
    "null in data": (json_request([None] * 64, "FP32", [1, 1, 8, 8]), ("no FP32",)),
    "fractions as bytes": (json_request(FLOATS, "UINT8"), ("no UINT8",)),
    "above 255": (json_request(GOOD.astype(int) + 200, "UINT8"), ("outside 0 to 255",)),
    "below 0": (json_request(-GOOD.astype(int), "UINT8"), ("outside 0 to 255",)),
    "above 1": (json_request(with_pixel(1.001), "FP32"), ("1.001", "[0, 1]", "nothing is clipped")),
    "negative pixel": (json_request(with_pixel(-0.001), "FP32"), ("-0.001", "[0, 1]")),
    "0 to 255 as FP32": (json_request(GOOD, "FP32"), ("UINT8",)),
    "too large for FP32": (json_request(with_pixel(0).astype(object) * 1e300 + 1e300, "FP32"), ("finite",)),
    "no base64": (json_request(["%%%"], "BYTES"), ("base64",)),
    "number as BYTES": (json_request([3], "BYTES"), ("base64",)),
    "BYTES in a square": (json_request([["AA==", "AA=="]], "BYTES"), ("[1, 2]", "[B]")),
    "image is empty": (json_request([""], "BYTES"), ("row 0", "no bytes")),
    "image is broken": (json_request(["AAAA"], "BYTES"), ("row 0", "not an image")),
    "unknown output": (json_request(GOOD, "UINT8", outputs=[{"name": "logits"}]), ("'logits'", "label")),
    "output twice": (json_request(GOOD, "UINT8", outputs=[{"name": "label"}] * 2), ("twice",)),
    "outputs are text": (json_request(GOOD, "UINT8", outputs="label"), ("`outputs`",)),
    "top-k": (
        json_request(GOOD, "UINT8", outputs=[{"name": "label", "parameters": {"classification": 2}}]),
        ("classification",),
    ),
    "partial is text": (json_request(GOOD, "UINT8", parameters={"partial": "yes"}), ("`partial`",)),
    "parameters are a list": (json_request(GOOD, "UINT8", parameters=[1]), ("`parameters`",)),
    "id is a number": (json_request(GOOD, "UINT8", id=3), ("`id`",)),
    "probabilities alone under partial": (
        json_request(GOOD, "UINT8", outputs=[{"name": "probabilities"}], parameters={"partial": True}),
        ("label", "verdict"),
    ),
    "unknown layout": (
        {"inputs": [{**json_request(GOOD, "UINT8")["inputs"][0], "parameters": {"layout": "CHWN"}}]},
        ("layout", "CHWN"),
    ),
    "layout contradicts": (
        {"inputs": [{**json_request(GOOD, "UINT8")["inputs"][0], "parameters": {"layout": "NHWC"}}]},
        ("[2, 1, 8, 8]",),
    ),
    "data and bytes": (
        {"inputs": [{**json_request(GOOD, "UINT8")["inputs"][0], "parameters": {"binary_data_size": 0}}]},
        ("both",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_request_is_told(monitor: TestClient, case: str) -> None:
    request, words = CASES[case]
    refused(monitor.post(URL, json=request), 400, *words)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_pixels_that_are_no_numbers(monitor: TestClient, value: float) -> None:
    floats = with_pixel(value).astype("<f4")
    refused(monitor.post(URL, **binary_request(floats.tobytes(), "FP32", [2, 1, 8, 8])), 400, "finite")
    body = json.dumps(json_request(floats, "FP32"))  # Python writes NaN and Infinity, which is no JSON
    refused(monitor.post(URL, content=body), 400, "finite")


@pytest.mark.parametrize("length", ["-1", "0", "1e3", "", "999999", "9" * 400, "1 2", "१२"])
def test_a_header_length_that_lies(monitor: TestClient, length: str) -> None:
    request = binary_request(RAW, "UINT8", [2, 1, 8, 8])
    headers = {"Inference-Header-Content-Length": length.encode()}
    refused(monitor.post(URL, content=request["content"], headers=headers), 400, "Inference-Header")


@pytest.mark.parametrize("shift", [-1, 1, 30])
def test_a_header_length_that_is_off(monitor: TestClient, shift: int) -> None:
    request = binary_request(RAW, "UINT8", [2, 1, 8, 8])
    length = int(request["headers"]["Inference-Header-Content-Length"]) + shift
    headers = {"Inference-Header-Content-Length": str(length)}
    refused(monitor.post(URL, content=request["content"], headers=headers), 400, "not JSON")


def test_binary_parts_of_the_wrong_size(monitor: TestClient) -> None:
    shape = [2, 1, 8, 8]
    refused(monitor.post(URL, **binary_request(RAW[:-1], "UINT8", shape)), 400, "128 bytes", "127")
    refused(monitor.post(URL, **binary_request(RAW, "FP32", shape)), 400, "512 bytes", "128")
    more = binary_request(RAW, "UINT8", shape)
    refused(monitor.post(URL, content=more["content"] + b"!", headers=more["headers"]), 400, "adds up to 128")
    less = {**more, "content": more["content"][:-1]}
    refused(monitor.post(URL, **less), 400, "`binary_data_size` is 128", "127 bytes are left")


@pytest.mark.parametrize("size", [-1, 1.5, "128", True, None])
def test_a_binary_size_that_is_no_size(monitor: TestClient, size: Any) -> None:
    entry = {
        "name": "x",
        "shape": [2, 1, 8, 8],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [entry]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    refused(monitor.post(URL, content=head + RAW, headers=headers), 400)


def test_elements_whose_lengths_lie(monitor: TestClient) -> None:
    (png,) = pngs(1)
    lying = struct.pack("<I", len(png) + 1) + png
    refused(monitor.post(URL, **binary_request(lying, "BYTES", [1])), 400, f"{len(png) + 1} bytes")
    huge = struct.pack("<I", 2**32 - 1) + png
    refused(monitor.post(URL, **binary_request(huge, "BYTES", [1])), 400, "4294967295")
    stray = struct.pack("<I", len(png)) + png + b"\0\0"
    refused(monitor.post(URL, **binary_request(stray, "BYTES", [1])), 400, "2 stray bytes")
    whole = struct.pack("<I", len(png)) + png
    refused(monitor.post(URL, **binary_request(whole, "BYTES", [2])), 400, "2 elements")


def test_bodies_that_are_too_large_or_packed(monitor: TestClient) -> None:
    refused(monitor.post(URL, **binary_request(bytes(60_000), "UINT8", [1, 1, 240, 250])), 413, "50000")
    answer = monitor.post(URL, content=b"x", headers={"Content-Encoding": "gzip"})
    refused(answer, 415, "Content-Encoding")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 40_000])
def test_bodies_that_are_no_message(monitor: TestClient, body: bytes) -> None:
    refused(monitor.post(URL, content=body), 400, "JSON")


def test_other_models_and_versions(monitor: TestClient) -> None:
    request = json_request(GOOD, "UINT8")
    refused(monitor.post("/v2/models/other/infer", json=request), 404, "'other'", "tiny")
    refused(monitor.post("/v2/models/tiny/versions/7/infer", json=request), 404, "'7'", "it is 0")
    assert monitor.post("/v2/models/tiny/versions/0/infer", json=request).status_code == 200


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), flip=st.integers(0, 400), to=st.integers(0, 255), length=st.integers(0, 500))
def test_damage_anywhere_is_a_4xx_or_an_answer(
    monitor: TestClient, cut: int, flip: int, to: int, length: int
) -> None:
    """A message with one byte changed, its end cut off, and any header length: never a failure of ours."""
    whole = bytearray(binary_request(RAW, "UINT8", [2, 1, 8, 8])["content"])
    whole[flip % len(whole)] = to
    body = bytes(whole[: len(whole) - cut % len(whole)])
    answer = monitor.post(URL, content=body, headers={"Inference-Header-Content-Length": str(length)})
    assert answer.status_code in (200, 400), answer.text


def test_a_bad_request_disturbs_nobody(monitor: TestClient) -> None:
    before = monitor.post(URL, json=json_request(GOOD, "UINT8")).json()["outputs"]
    refused(monitor.post(URL, json=json_request(with_pixel(2), "FP32")), 400)
    assert monitor.post(URL, json=json_request(GOOD, "UINT8")).json()["outputs"] == before


def test_metadata_and_health(monitor: TestClient, make_client: MakeClient) -> None:
    server = monitor.get("/v2").json()
    assert (server["name"], server["extensions"]) == ("triggerwall", ["binary_tensor_data"])
    assert monitor.get("/v2/health/live").json() == {"live": True}
    assert monitor.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/tiny", "/v2/models/tiny/versions/0"):
        model = monitor.get(path).json()
        assert (model["name"], model["versions"]) == ("tiny", ["0"])
        assert model["inputs"][0]["shape"] == [-1, 1, 8, 8]
        shapes = {output["name"]: output["shape"] for output in model["outputs"]}
        assert shapes == {
            "label": [-1], "probabilities": [-1, 4], "verdict": [-1], "score": [-1, 1], "p_value": [-1, 1],
        }  # fmt: skip
        assert monitor.get(f"{path}/ready").json() == {"name": "tiny", "ready": True}
    refused(monitor.get("/v2/models/other"), 404, "tiny")
    refused(monitor.get("/v2/models/tiny/versions/9/ready"), 404)
    uncalibrated = make_client()
    for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
        refused(uncalibrated.get(path), 503, "calibrat")


def test_a_client_that_reads_base64_of_a_photo(monitor: TestClient) -> None:
    photo = base64.b64encode(pngs(1)[0]).decode()
    assert monitor.post(URL, json=json_request([[photo]], "BYTES")).status_code == 200  # [B, 1] as well
