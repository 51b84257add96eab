"""A detector that compares images with benign ones, behind the gateway: over HTTP and through a restart."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import MakeClient
from tests.app.tiny import form, pngs

STRIP: dict[str, Any] = {"detectors": ("strip", "spc"), "strip_overlays": 5}


def detections(client: TestClient) -> list[list[dict[str, Any]]]:
    answer = client.post("/classify?full=true", files=form(pngs(12, seed=9)))
    assert answer.status_code == 200, answer.text
    return [each["detections"] for each in answer.json()["results"]]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_first_images_are_kept_and_not_measured(make_client: MakeClient, batch: int) -> None:
    client = make_client(**STRIP, calibration_batch_images=batch)
    answer = client.post("/calibrate", files=form([b"broken", *pngs(60, seed=1)]))
    assert answer.status_code == 201, answer.text
    report = answer.json()
    assert report["images"] == 55
    assert report["skipped_images"] == 1
    strip = next(each for each in report["detectors"] if each["detector"] == "strip")
    assert set(strip["fit"]) == {"mean", "std"}  # no pictures in what people read


def test_labels_stay_with_their_images(make_client: MakeClient) -> None:
    """The five that are kept have wrong labels, the others those that the classifier gives."""
    client = make_client(detectors=("spc",), mode="monitor")
    images = pngs(40, seed=2)
    predicted = [
        r["prediction"]["label"] for r in client.post("/classify", files=form(images)).json()["results"]
    ]
    labels = [str((label + 1) % 4) for label in predicted[:5]] + [str(label) for label in predicted[5:]]
    answer = make_client(**STRIP).post("/calibrate", files=form(images, labels=labels))
    assert answer.status_code == 201, answer.text
    assert answer.json()["benign_accuracy"] == 1.0


def test_scores_are_the_same_after_a_restart(make_client: MakeClient) -> None:
    first = make_client(**STRIP)
    assert first.post("/calibrate", files=form(pngs(60, seed=1))).status_code == 201
    before = detections(first)
    assert {each["detector"] for found in before for each in found} == {"strip", "spc"}
    assert detections(make_client(**STRIP)) == before


@pytest.mark.parametrize("count", [1, 5, 6])
def test_too_few_images_are_refused_with_a_sentence(make_client: MakeClient, count: int) -> None:
    answer = make_client(**STRIP).post("/calibrate", files=form(pngs(count)))
    assert answer.status_code == 422
    assert "too few" in answer.json()["detail"]
