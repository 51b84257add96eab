"""Guarding a network that a real MLServer serves, by its labels or its probabilities alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from models.errors import BadUpstreamAnswer, UpstreamUnavailable
from models.loading import load_bundle
from models.remote import Connection, RemoteClassifier
from tests.app.service import Service
from tests.app.tiny import CLASSES, SIZE, form, pixels, pngs, write_bundle
from tests.mlserver import MODEL, MLServer
from tests.peers import PATIENT

pytestmark = PATIENT


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def server(near: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServer]:
    with MLServer(near, tmp_path_factory.mktemp("mlserver")) as running:
        yield running


def remote_bundle(folder: Path, url: str, access: str, **fields: object) -> Path:
    spec = {
        "name": "guarded", "backend": "remote", "url": url, "model_name": MODEL, "access": access,
        "output_name": "label" if access == "labels" else "probabilities", "labels": list(CLASSES),
        "input": {"size": [SIZE, SIZE], "channels": 1}, **fields,
    }  # fmt: skip
    (folder / "model.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder


def images(count: int) -> torch.Tensor:
    return torch.from_numpy(pixels(count, seed=3)[:, None].astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("access", ["labels", "probabilities"])
def test_it_answers_as_the_network_does(server: MLServer, near: Path, tmp_path: Path, access: str) -> None:
    far = load_bundle(remote_bundle(tmp_path, server.url, access, max_batch=10))
    here = load_bundle(near).logits(images(24))
    there = far.logits(images(24))
    assert there.argmax(1).tolist() == here.argmax(1).tolist()
    if access == "probabilities":
        assert there.softmax(1).numpy() == pytest.approx(here.softmax(1).numpy(), abs=1e-6)


def test_what_it_refuses_is_told(server: MLServer, tmp_path: Path) -> None:
    unknown = remote_bundle(tmp_path, server.url, "labels", model_name="other")
    with pytest.raises(BadUpstreamAnswer, match="answered 404"):
        load_bundle(unknown).logits(images(1))
    nobody = Connection(url="http://127.0.0.1:9", retries=0)
    with pytest.raises(UpstreamUnavailable, match="cannot be reached"):
        load_bundle(unknown, connection=nobody).logits(images(1))


@pytest.mark.parametrize("access", ["labels", "probabilities"])
def test_a_gateway_in_front_of_it_judges_as_one_in_front_of_the_network(
    server: MLServer, near: Path, tmp_path: Path, access: str
) -> None:
    detectors = ["spc"] if access == "labels" else ["profile", "spc"]
    options = {"device": "cpu", "alpha": 0.4, "detectors": detectors}
    far = remote_bundle(tmp_path, server.url, access)
    answers = []
    for bundle, data in ((far, tmp_path / "far"), (near, tmp_path / "near")):
        with Service(bundle=bundle, data_dir=data, **options) as service:
            assert service.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
            answers.append(service.http.post("/classify", files=form(pngs(24, seed=3))).json()["results"])
            metrics = service.http.get("/metrics").text
        assert ('upstream_attempts_total{outcome="answered"}' in metrics) == (bundle is far)
    there, here = answers
    assert [each["verdict"] for each in there] == [each["verdict"] for each in here]
    assert {each["verdict"] for each in there} == {"accepted", "rejected"}
    assert isinstance(load_bundle(far), RemoteClassifier)


def test_when_it_dies_and_comes_back(near: Path, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with MLServer(near, tmp_path / "server") as server:
        far = load_bundle(remote_bundle(tmp_path, server.url, "labels"), connection=Connection(retries=0))
        assert far.logits(images(2)).shape == (2, 4)
    with pytest.raises(UpstreamUnavailable):
        far.logits(images(2))
    with server:
        assert far.logits(images(2)).shape == (2, 4)
