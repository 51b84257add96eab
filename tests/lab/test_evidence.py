"""What the lab measures for comparison is what the models do."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lab.cli import app
from lab.data import LabError, open_images
from lab.evidence import measure_evidence, merge
from models.loading import load_network
from tests.lab.test_cli import arguments

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a backdoor and one BatchNorm layer."""
    out = tmp_path_factory.mktemp("models") / "tiny"
    result = CliRunner().invoke(app, arguments(archive, out, name="tiny", epochs="3"))
    assert result.exit_code == 0, result.output
    return out


def test_the_figures_are_the_model_s(bundle: Path, archive: Path) -> None:
    test = open_images(str(archive), "test")
    found = measure_evidence(bundle, test, str(archive), 1000, 0, CPU)
    assert (found.model, found.backdoored, found.images, found.count) == ("tiny", True, "bars.zip", 60)
    assert found.training.endswith("3 epochs on bars.zip, badnets to label 1")
    network, images = load_network(bundle, CPU).network, test.images.float() / 255
    by = {(each["by"], each["strength"]): each for each in found.collapse}
    assert set(by) == {("amplification", 1), *(("scaling", scale) for scale in (3, 5, 7, 9, 11))}
    with torch.inference_mode():
        answers = network((images * 5).clamp(0, 1)).argmax(1)
        plain = network(images).argmax(1)
    assert by["scaling", 5]["share"] == pytest.approx(answers.bincount().max().item() / 60)
    assert found.benign_accuracy == pytest.approx((plain == test.labels).double().mean().item())


def test_the_command_adds_to_its_file(bundle: Path, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    words = [
        "evidence",
        "--bundle",
        str(bundle),
        "--data",
        str(archive),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    for _ in range(2):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [each["model"] for each in found["models"]] == ["tiny"]  # the second time replaces the first
    (command,) = found["commands"]
    assert command.startswith("triggerwall lab evidence --bundle tiny --data bars.zip")
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    out.write_text("[1]", encoding="utf-8")
    with pytest.raises(LabError, match="holds no figures"):
        merge(out, [], "x")


def test_images_of_another_kind(bundle: Path, archive: Path) -> None:
    grey = open_images(str(archive), "test", channels=1)
    with pytest.raises(LabError, match="takes 3-channel images"):
        measure_evidence(bundle, grey, str(archive), 100, 0, CPU)
