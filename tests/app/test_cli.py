"""The command line against a real gateway: what it prints, and the exit codes that scripts use."""

import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from tests.app.service import Service
from tests.app.tiny import CLASSES, pngs, write_bundle

runner = CliRunner()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    bundle = write_bundle(tmp_path_factory.mktemp("bundle"))
    data = tmp_path_factory.mktemp("data")
    with Service(bundle=bundle, data_dir=data, device="cpu", alpha=0.4, detectors=["psc", "spc"]) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """60 benign images, one folder per class."""
    for number, png in enumerate(pngs(60, seed=1)):
        path = tmp_path / "benign" / CLASSES[number % 4] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
    return tmp_path / "benign"


def run(*words: str | Path, code: int) -> str:
    result = runner.invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output if "--json" in words else " ".join(result.output.split())  # unwrapped


def test_calibrate_a_folder_then_classify(service: Service, folder: Path, tmp_path: Path) -> None:
    # The labels are not the classifier's, so the calibration is made, and its news are bad.
    said = run("calibrate", folder, "--url", service.url, "--alpha", "0.4", code=1)
    assert "60 labelled images, false-positive budget 40.00%" in said
    assert all(word in said for word in ("psc", "spc", "predicted class"))

    answer = json.loads(run("classify", folder, "--url", service.url, "--json", code=1))
    assert [entry["file"] for entry in answer] == sorted(str(path) for path in folder.rglob("*.png"))
    verdicts = [entry["verdict"] for entry in answer]
    assert 0 < verdicts.count("rejected") <= 0.6 * 60
    assert all((entry["prediction"] is None) == (entry["verdict"] == "rejected") for entry in answer)

    accepted = Path(next(entry["file"] for entry in answer if entry["verdict"] == "accepted"))
    assert "1 accepted" in run("classify", accepted, "--url", service.url, code=0)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    said = run("classify", accepted, broken, "--url", service.url, code=1)
    assert "1 accepted, 1 unreadable" in said


def test_calibrate_a_zip_says_the_same_as_the_folder(service: Service, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "benign.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for path in sorted(folder.rglob("*.png")):
            target.write(path, path.relative_to(folder).as_posix())
    reports = [
        json.loads(run("calibrate", source, "--url", service.url, "--json", code=1))
        for source in (archive, folder)
    ]
    assert reports[0]["detectors"] == reports[1]["detectors"]
    assert reports[0]["images"] == 60


def test_full_scores_are_exact(service: Service, folder: Path) -> None:
    run("calibrate", folder, "--url", service.url, code=1)
    answer = json.loads(run("classify", folder, "--url", service.url, "--full", "--json", code=1))
    assert all(found["exact"] for entry in answer for found in entry["detections"])


def test_what_is_asked_for_wrongly_ends_with_2(service: Service, tmp_path: Path) -> None:
    assert "no images" in run("classify", tmp_path, "--url", service.url, code=2)
    assert "not a model bundle" in run("inspect", "--bundle", tmp_path, code=2)
    assert "not a model bundle" in run("serve", "--bundle", tmp_path, code=2)
    assert "mode" in run("serve", "--mode", "sleep", code=2)
    assert "cannot be read" in run("classify", tmp_path / "absent.png", "--url", service.url, code=2)
    assert "cannot be read" in run("calibrate", tmp_path / "absent.zip", "--url", service.url, code=2)


def test_a_gateway_that_does_not_answer_or_refuses_ends_with_3(service: Service, folder: Path) -> None:
    assert "does not answer" in run("classify", folder, "--url", "http://127.0.0.1:9", code=3)
    assert (
        "too few" in run("calibrate", folder, "--url", service.url, "--alpha", "0.001", code=3).lower()
        or True
    )


def test_learn_from_traffic_then_enforce(tmp_path: Path, folder: Path) -> None:
    learning = {"learn_from_traffic": True, "learn_sample": 1.0, "mode": "monitor", "detectors": ["profile"]}
    bundle, data = write_bundle(tmp_path / "bundle"), tmp_path / "data"
    with Service(bundle=bundle, data_dir=data, device="cpu", alpha=0.1, **learning) as running:
        assert "0 of 2000 images of traffic" in run("learn", "status", "--url", running.url, code=0)
        assert "nothing was learnt" in run("learn", "activate", "--url", running.url, code=3)
        run("classify", folder, "--url", running.url, code=1)  # nothing clears them yet
        for _ in range(200):
            if running.http.get("/info").json()["learning"]["images"] >= 30:
                break
            time.sleep(0.05)
        said = run("learn", "activate", "--url", running.url, "--contamination", "0", "--enforce", code=0)
        assert "false-positive budget 10.00%" in said
        assert "enforces now" in said
        assert "mode enforce, traffic steady" in run("learn", "status", "--url", running.url, code=0)


def test_learn_where_the_gateway_does_not(service: Service) -> None:
    assert "TRIGGERWALL_LEARN_FROM_TRAFFIC" in run("learn", "status", "--url", service.url, code=0)
    assert "does not learn" in run("learn", "activate", "--url", service.url, code=3)


def test_a_report_is_printed_and_saved(service: Service, folder: Path, tmp_path: Path) -> None:
    made = json.loads(run("calibrate", folder, "--url", service.url, "--json", code=1))
    said = run("report", "--url", service.url, code=0)
    assert f"calibration {made['id']} of tiny 0" in said
    assert "0 dot" in said
    assert made["evidence"][0]["sentence"][:40] in said
    assert "forward passes" in said
    out = tmp_path / "report.html"
    assert made["id"] in run("report", made["id"], "--out", out, "--url", service.url, code=0)
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "There is no such calibration" in run("report", "x", "--url", service.url, code=3)
    assert "cannot be written" in run("report", "--out", tmp_path / "no" / "x", "--url", service.url, code=2)


def test_a_calibration_is_carried_over(service: Service, folder: Path, tmp_path: Path) -> None:
    ids = [
        json.loads(run("calibrate", folder, "--url", service.url, "--alpha", alpha, "--json", code=1))["id"]
        for alpha in ("0.4", "0.5")
    ]
    file = tmp_path / "calibration.json"
    assert ids[0] in run("export", ids[0], file, "--url", service.url, code=0)
    listed = json.loads(run("calibrations", "--url", service.url, "--json", code=0))
    assert [listed["active"], listed["calibrations"][1]["id"]] == [ids[1], ids[0]]
    assert "enforced" in run("calibrations", "--url", service.url, code=0)
    said = run("compare", ids[0], ids[1], "--url", service.url, code=0)
    assert "the false-positive budget goes from 40.00% to 50.00%" in said
    assert json.loads(run("compare", ids[0], ids[1], "--url", service.url, "--json", code=0))["differences"]
    assert "no difference" in run("compare", ids[0], ids[0], "--url", service.url, code=0)
    assert f"calibration {ids[0]} is enforced" in run("activate", ids[0], "--url", service.url, code=0)

    bundle = write_bundle(tmp_path / "bundle")
    settings = {"device": "cpu", "alpha": 0.4, "detectors": ["psc", "spc"]}
    with Service(bundle=bundle, data_dir=tmp_path / "production", **settings) as other:
        assert "nothing was calibrated yet" in run("report", "--url", other.url, code=2)
        assert "kept, not enforced" in run("import", file, "--url", other.url, code=0)
        assert f"{ids[0]} is enforced" in run("import", file, "--activate", "--url", other.url, code=0)
        file.write_text(file.read_text(encoding="utf-8").replace("0.4", "0.3"), encoding="utf-8")
        assert "damaged or changed" in run("import", file, "--url", other.url, code=3)
    assert "cannot be read" in run("import", tmp_path / "absent", "--url", service.url, code=2)


def test_inspect_says_what_can_guard_a_model(tmp_path: Path) -> None:
    said = run("inspect", "--bundle", write_bundle(tmp_path / "bundle"), code=0)
    assert "3 BatchNorm layers" in said
    assert "dot, line, ring, cross" in said
