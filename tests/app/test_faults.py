"""Images that the classifier fails on, through the whole path: they fail alone, and never with a label."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from httpx import Response

from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import slug
from tests.app.tiny import Mood, encoded, form, in_mood, pixels, pngs, write_bundle

PNG = {"Content-Type": "image/png"}
FAULTY = {
    Mood.RAISE: "exception",
    Mood.EXIT: "exception",
    Mood.NO_MEMORY: "out-of-memory",
    Mood.NAN: "not-a-number",
}


@pytest.fixture(scope="session")
def moody_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("moody"), kind="moody")


@pytest.fixture
def make_moody(make_client: MakeClient, moody_bundle: Path) -> MakeClient:
    """Calibrated gateways around a moody classifier, in enforce mode."""

    def make(**overrides: Any) -> TestClient:
        client = make_client(bundle=moody_bundle, **overrides)
        assert client.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        return client

    return make


def moody_png(mood: Mood, seed: int = 9) -> bytes:
    return encoded(in_mood(pixels(1, seed)[0], mood))


def counted(client: TestClient, fault: str) -> float:
    prefix = f'triggerwall_images_unjudged_total{{fault="{fault}"}} '
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.removeprefix(prefix)) for line in lines if line.startswith(prefix)), 0.0)


@pytest.mark.parametrize("setting", ["reject", "error"])
@pytest.mark.parametrize("mood", FAULTY)
def test_a_faulty_image_fails_alone_and_its_label_stays(
    make_moody: MakeClient, mood: Mood, setting: str
) -> None:
    client = make_moody(on_detector_failure=setting)
    good = pngs(6, seed=3)
    expected = [client.post("/classify", content=each, headers=PNG).json()["results"][0] for each in good]
    bad = moody_png(mood)
    answer = client.post("/classify", files=form([*good[:2], bad, *good[2:5], bad, good[5]]))
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [results[n] for n in (0, 1, 3, 4, 5, 7)] == [
        {**each, "prediction": pytest.approx(each["prediction"])} for each in expected
    ]
    for result in (results[2], results[6]):
        assert result["prediction"] is None
        if setting == "reject":
            assert result["verdict"] == "rejected"
        else:
            assert (result["verdict"], result["error"]["status"]) == (None, 503)
            assert result["error"]["type"] == "urn:triggerwall:problem:not-judged"
    if setting == "error" or mood is not Mood.NAN:  # else the detectors have spoken: suspicious
        assert counted(client, FAULTY[mood]) == 2


@pytest.mark.parametrize("mood", FAULTY)
def test_alone_a_faulty_image_is_rejected_or_a_503(make_moody: MakeClient, mood: Mood) -> None:
    rejecting, failing = make_moody(), make_moody(on_detector_failure="error")
    (result,) = rejecting.post("/classify", content=moody_png(mood), headers=PNG).json()["results"]
    assert (result["verdict"], result["prediction"]) == ("rejected", None)
    for request in ({"content": moody_png(mood), "headers": PNG}, {"files": form([moody_png(mood)] * 3)}):
        answer = failing.post("/classify", **request)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:triggerwall:problem:not-judged"
        assert "label" not in answer.text.replace("no label", "")
    assert failing.get("/readyz").status_code == 200  # grey images can be judged: it was this one's fault


def test_monitor_mode_has_no_label_to_give_either(make_moody: MakeClient) -> None:
    client = make_moody(mode="monitor")
    first, second = client.post("/classify", files=form([moody_png(Mood.RAISE), *pngs(1)])).json()["results"]
    assert (first["verdict"], first["prediction"], first["error"]["status"]) == ("flagged", None, 503)
    assert second["prediction"] is not None


def test_what_does_not_fit_into_memory_together_is_judged_apart(make_moody: MakeClient) -> None:
    client = make_moody()
    crowd = [encoded(in_mood(image, Mood.NO_CROWD)) for image in pixels(8, seed=4)]
    alone = [client.post("/classify", content=each, headers=PNG).json()["results"][0] for each in crowd]
    results = client.post("/classify", files=form(crowd)).json()["results"]
    assert [result["verdict"] for result in results] == [result["verdict"] for result in alone]
    assert all("error" not in result for result in results)


def test_other_peoples_requests_in_the_batch_are_answered(make_moody: MakeClient) -> None:
    client = make_moody(batch_delay_ms=300)
    answers: dict[int, Any] = {}
    images = [*pngs(3, seed=5), moody_png(Mood.RAISE), *pngs(2, seed=6)]
    for _ in range(3):  # so that arrivals are close together, and waited for
        client.post("/classify", content=images[0], headers=PNG)

    def ask(number: int) -> None:
        answers[number] = client.post("/classify", content=images[number], headers=PNG).json()["results"][0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "error" in answers.pop(3)
    assert all("error" not in answer for answer in answers.values())


def test_the_log_says_so_once_and_escaped(make_moody: MakeClient, caplog: pytest.LogCaptureFixture) -> None:
    client = make_moody()
    with caplog.at_level(logging.ERROR, logger="triggerwall.faults"):
        client.post("/classify", files=form([moody_png(Mood.RAISE)] * 16))
    (record,) = [each for each in caplog.records if each.name == "triggerwall.faults"]
    assert "could not be judged together" in record.getMessage()
    assert "RuntimeError: 'bad mood\\nINFO forged line'" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_classifier_that_fails_on_everything_is_told_to_liveness_and_readiness(
    make_moody: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_moody()
    firewall: Any = client.app.state.gateway.firewall  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(firewall.classifier, "logits", lambda _: 1 / 0)
        (result,) = client.post("/classify", content=pngs(1)[0], headers=PNG).json()["results"]
        assert (result["verdict"], result["prediction"]) == ("rejected", None)
        for path in ("/livez", "/readyz"):
            answer = client.get(path)
            assert slug(answer) == "device-stuck"
    assert client.post("/classify", content=pngs(1)[0], headers=PNG).status_code == 200  # it has recovered
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200


def test_a_call_that_does_not_return_costs_others_time_and_nothing_else(make_moody: MakeClient) -> None:
    """Whoever waits for it is told 504 at their deadline, the watchdog 503; afterwards it works again."""
    client = make_moody(stuck_after_s=1, remote_timeout_s=0.5)
    begun = time.monotonic()
    late = {**PNG, "X-Request-Timeout-Ms": "100"}
    answer = client.post("/classify", content=moody_png(Mood.STUCK), headers=late)
    assert answer.json()["type"] == "urn:triggerwall:problem:deadline-exceeded"
    while client.get("/livez").status_code == 200:
        assert time.monotonic() < begun + 3
        time.sleep(0.05)
    answer = client.post("/classify", content=pngs(1)[0], headers=PNG)
    assert (answer.status_code, slug(answer)) == (503, "device-stuck")
    while client.get("/livez").status_code == 503:
        time.sleep(0.05)
    assert client.post("/classify", content=pngs(1)[0], headers=PNG).status_code == 200


def test_confidences_that_are_no_numbers_count_as_no_score(make_moody: MakeClient) -> None:
    """Infinite logits agree with themselves under every scale, and their confidence is 0/0."""
    client = make_moody()
    classifier: Any = client.app.state.gateway.firewall.classifier  # type: ignore[attr-defined]
    real = classifier.logits
    classifier.logits = lambda images: real(images).masked_fill(
        torch.tensor([True, False, False, False]), np.inf
    )
    results = client.post("/classify", files=form(pngs(5))).json()["results"]
    assert {result["verdict"] for result in results} == {"rejected"}


class TestCalibrating:
    """Images at which the classifier fails are left out, and named; the others count."""

    def calibrate(self, client: TestClient, images: list[bytes]) -> Response:
        return client.post("/calibrate", files=form(images, alpha="0.2"))

    @pytest.mark.parametrize(("detectors", "aside"), [(("spc",), 0), (("strip", "spc"), 16)])
    def test_the_others_are_measured(
        self,
        make_client: MakeClient,
        moody_bundle: Path,
        tmp_path: Path,
        detectors: tuple[str, ...],
        aside: int,
    ) -> None:
        good = pngs(60, seed=1)
        bad = {30: Mood.RAISE, 41: Mood.EXIT, 62: Mood.NO_MEMORY}
        images = good.copy()
        for place, mood in bad.items():
            images.insert(place, moody_png(mood))
        options = {"bundle": moody_bundle, "detectors": detectors}
        client = make_client(**options, data_dir=tmp_path / "some")
        report = self.calibrate(client, images).json()
        assert (report["images"], report["skipped_images"]) == (60 - aside, 3)
        said = {each["part"]: each["detail"] for each in report["skipped"]}
        assert said == {
            "30.png": "RuntimeError: bad mood",
            "41.png": "SystemExit: 3",
            "62.png": "OutOfMemoryError: out of memory",
        }
        alone = self.calibrate(make_client(**options, data_dir=tmp_path / "alone"), good).json()
        for with_bad, without in zip(report["detectors"], alone["detectors"], strict=True):
            assert with_bad["thresholds"] == without["thresholds"]

    def test_a_classifier_that_fails_at_everything_is_no_calibration(
        self, make_client: MakeClient, moody_bundle: Path
    ) -> None:
        client = make_client(bundle=moody_bundle)
        answer = self.calibrate(client, [moody_png(Mood.RAISE, seed) for seed in range(20)])
        assert answer.status_code == 422
        assert (
            "over half of 20 images could not be measured; the first: RuntimeError: bad mood"
            in answer.json()["detail"]
        )
        assert client.get("/info").json()["calibrating"] is None
