"""The settings choose the engine, and `/info` says which one runs and why."""

import pytest

from app import assembly
from detectors import compiling
from detectors.base import UnsupportedNetwork
from tests.app.conftest import MakeClient
from tests.app.tiny import form, pngs

FAST = {"psc_precision": "bfloat16", "psc_channels_last": True, "psc_fold": True}


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({"packed_weights": True}, "fork (3 layers folded, 3 convolutions packed)"),
        ({"packed_weights": True, **FAST}, "fork (bfloat16, channels_last, 3 layers folded)"),
        ({}, "fork"),
        ({"psc_engine": "copies"}, "copies"),
        (FAST, "fork (bfloat16, channels_last, 3 layers folded)"),
    ],
)
def test_the_engine_of_the_settings_runs(
    make_client: MakeClient, settings: dict[str, object], engine: str
) -> None:
    client = make_client(detectors=("psc",), psc_n=2, **settings)
    answer = client.post("/calibrate", files=form(pngs(60, seed=1)))
    assert answer.status_code == 201, answer.text
    detector = client.get("/info").json()["detectors"][0]
    assert detector["engine"] == engine
    assert detector["settings"]["precision"] == settings.get("psc_precision", "float32")
    results = client.post("/classify?full=true", files=form(pngs(20, seed=2))).json()["results"]
    assert all(0 <= each["detections"][0]["score"] <= 1 for each in results)


def test_a_gateway_that_cannot_compile_serves_eagerly_and_says_so(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object) -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr(compiling, "compile_options", lambda _: {"backend": no_compiler})
    client = make_client(detectors=("psc",), psc_n=2, psc_compile=True)
    assert client.post("/calibrate", files=form(pngs(60, seed=1))).status_code == 201
    engine = client.get("/info").json()["detectors"][0]["engine"]
    assert engine.startswith("fork (eager, as torch.compile failed: ")
    assert "no working C++ compiler" in engine
    assert client.post("/classify", files=form(pngs(20, seed=2))).status_code == 200


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({"packed_weights": True}, "traced (3 layers folded, 3 convolutions packed)"),
        ({"packed_weights": False}, "eager"),
    ],
)
def test_what_computes_predictions_is_told(
    make_client: MakeClient, settings: dict[str, object], engine: str
) -> None:
    assert make_client(**settings).get("/info").json()["model"]["engine"] == engine


def test_a_network_that_cannot_be_packed_is_served_as_it_is(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedNetwork("it is one of a kind")

    monkeypatch.setattr(assembly, "pack_network", refuse)
    client = make_client(detectors=("psc",), psc_n=2, packed_weights=True)
    assert client.get("/info").json()["model"]["engine"] == "eager (it is one of a kind)"
    assert client.post("/calibrate", files=form(pngs(60, seed=1))).status_code == 201
    assert client.get("/info").json()["detectors"][0]["engine"] == "fork"


def test_packed_weights_change_no_verdict(
    make_client: MakeClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    answers = []
    for packed in (True, False):
        directory = tmp_path_factory.mktemp(str(packed))
        client = make_client(
            detectors=("profile", "psc", "spc"), psc_n=2, packed_weights=packed, data_dir=directory
        )
        client.post("/calibrate", files=form(pngs(60, seed=1)))
        answers.append(client.post("/classify?full=true", files=form(pngs(40, seed=2))).json()["results"])
    for one, other in zip(*answers, strict=True):
        assert one["verdict"] == other["verdict"]
        labels = [each["prediction"] and each["prediction"]["label"] for each in (one, other)]
        assert labels[0] == labels[1]
        for first, second in zip(one["detections"], other["detections"], strict=True):
            assert first["score"] == pytest.approx(second["score"], abs=1e-4)


def test_fork_and_copies_give_the_same_verdicts(
    make_client: MakeClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    answers = []
    for engine in ("fork", "copies"):
        client = make_client(
            detectors=("psc",), psc_n=2, psc_engine=engine, data_dir=tmp_path_factory.mktemp(engine)
        )
        client.post("/calibrate", files=form(pngs(60, seed=1)))
        results = client.post("/classify?full=true", files=form(pngs(40, seed=2))).json()["results"]
        answers.append([(each["verdict"], each["detections"][0]["score"]) for each in results])
    assert [verdict for verdict, _ in answers[0]] == [verdict for verdict, _ in answers[1]]
    assert [score for _, score in answers[0]] == pytest.approx([score for _, score in answers[1]], abs=1e-5)
