"""Clients that others wrote, against a gateway on a socket: Triton's and KServe's."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from tests.app.service import Service
from tests.app.tiny import form, pixels, pngs, write_bundle
from tests.peers import PATIENT, python_with

IMAGES = pixels(24, seed=3)
FLOATS = (IMAGES[:, None] / 255).astype(np.float32)
SCRIPT = Path(__file__).with_name("kserve_client.py")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    bundle, data = write_bundle(tmp_path_factory.mktemp("bundle")), tmp_path_factory.mktemp("data")
    with Service(bundle=bundle, data_dir=data, device="cpu", alpha=0.4, detectors=["spc"]) as running:
        assert running.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        yield running


@pytest.fixture(scope="module")
def labels(service: Service) -> list[int]:
    """What /classify says; -1 where it rejects."""
    results = service.http.post("/classify", files=form(pngs(24, seed=3))).json()["results"]
    found = [result["prediction"]["label"] if result["prediction"] else -1 for result in results]
    assert -1 in found
    assert len({*found}) > 2
    return found


@pytest.fixture
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as running:
        yield running


def given(values: np.ndarray, datatype: str, *, binary: bool) -> list[Any]:
    tensor = triton.InferInput("input__0", list(values.shape), datatype)
    return [tensor.set_data_from_numpy(values, binary_data=binary)]


def test_triton_asks_who_and_how(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "0")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("tiny", "0")
    assert {output["name"] for output in metadata["outputs"]} >= {"label", "probabilities", "verdict"}
    made_of_metadata = np.zeros([2, *metadata["inputs"][0]["shape"][1:]], dtype=np.float32)
    assert made_of_metadata.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_triton_reads_every_output(
    client: triton.InferenceServerClient, labels: list[int], binary: bool, datatype: str
) -> None:
    values = FLOATS if datatype == "FP32" else IMAGES[:, None]
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "verdict", "score")
    ]
    sent = given(values, datatype, binary=binary)
    result = client.infer("tiny", sent, outputs=outputs, request_id="7", parameters={"partial": True})
    assert result.get_response()["id"] == "7"
    assert result.as_numpy("label").tolist() == labels
    verdicts = [v if isinstance(v, str) else v.decode() for v in result.as_numpy("verdict").tolist()]
    assert verdicts == ["rejected" if label < 0 else "accepted" for label in labels]
    assert result.as_numpy("score").shape == (24, 1)


def test_triton_with_its_defaults_gets_bytes(client: triton.InferenceServerClient, labels: list[int]) -> None:
    """It names no outputs and asks for all of them as bytes; encoded images are BYTES."""
    files = np.array(pngs(24, seed=3), dtype=np.object_)
    result = client.infer("tiny", given(files, "BYTES", binary=True), parameters={"partial": True})
    assert result.as_numpy("label").tolist() == labels
    probabilities = result.as_numpy("probabilities")
    for row, label in zip(probabilities, labels, strict=True):
        assert row.argmax() == label if label >= 0 else not row.any()


def test_triton_is_told_which_rows_were_rejected(
    client: triton.InferenceServerClient, labels: list[int]
) -> None:
    with pytest.raises(InferenceServerException, match="rejected by the firewall: row") as raised:
        client.infer("tiny", given(FLOATS, "FP32", binary=True))
    assert raised.value.status() == "403"
    assert f" {labels.index(-1)}" in raised.value.message()


@pytest.mark.parametrize(
    ("values", "datatype", "said"),
    [(FLOATS * 255, "FP32", "pixels from"), (FLOATS.astype(np.float64), "FP64", "is FP64")],
)
def test_triton_reads_our_errors(
    client: triton.InferenceServerClient, values: np.ndarray, datatype: str, said: str
) -> None:
    with pytest.raises(InferenceServerException, match=said):
        client.infer("tiny", given(values, datatype, binary=True))
    wanted = [triton.InferRequestedOutput("logits")]
    with pytest.raises(InferenceServerException, match="no output 'logits'"):
        client.infer("tiny", given(FLOATS, "FP32", binary=True), outputs=wanted)


@PATIENT
def test_kserve_speaks_to_it(service: Service, labels: list[int], tmp_path: Path) -> None:
    python = python_with("kserve", "kserve==0.21.0")
    np.save(tmp_path / "images.npy", FLOATS)
    ran = subprocess.run(
        [python, SCRIPT, service.url, tmp_path / "images.npy"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert (said["live"], said["ready"], said["model_ready"]) == (True, True, True)
    for form_ in ("json", "binary"):
        assert said[form_]["label"] == labels
        assert said[form_]["verdict"] == ["rejected" if label < 0 else "accepted" for label in labels]
    assert "rejected by the firewall: row" in said["refused"]
    assert "403" in said["refused"]
