"""Every example of docs/backends is run as it stands."""

import os
import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from app.cli import app
from tests.app.service import Service
from tests.models.artefacts import SIDE, exported_program, small_network

PAGES = Path(__file__).parents[2] / "docs" / "backends"
NEEDS = {"timm": "timm", "onnx": "onnxruntime"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced code of a page, in order."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def triggerwall(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command)[1:], env={"COLUMNS": "200"})


def words(text: str) -> str:
    return " ".join(re.sub(r"[│┃┌┐└┘├┤─]", " ", text).split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    return tmp_path


@pytest.mark.parametrize("page", ["torch", "timm", "exported", "torchscript", "onnx"])
def test_the_bundle_of_a_page(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(NEEDS.get(page, "torch"))
    (code,), (spec,), (commands,), (said,) = (
        blocks(page, language) for language in ("python", "yaml", "sh", "text")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        exec(compile(code, f"{page}.md", "exec"), {})
    (place / "my-model" / "model.yaml").write_text(spec, encoding="utf-8")
    for command in commands.splitlines():
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
            continue
        result = triggerwall(command)
        assert result.exit_code == 0, result.output
        for line in said.splitlines():
            assert line in words(result.output)


def test_five_minutes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of the first page: a gateway comes up, is calibrated, and answers."""
    onnx = pytest.importorskip("onnx")
    torch_onnx = pytest.importorskip("torch.onnx")
    torch_onnx.export(exported_program(small_network()), (), "my-model/model.onnx", verbose=False)
    assert onnx.load("my-model/model.onnx").graph.node
    (spec,) = blocks("README", "yaml")
    (place / "my-model" / "model.yaml").write_text(spec.replace("[32, 32]", f"[{SIDE}, {SIDE}]"))
    (place / "benign-images" / "0").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (320, SIDE, SIDE, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(place / "benign-images" / "0" / f"{number}.png")
    Image.fromarray(pixels).resize((20, 30)).save(place / "photo.png")
    commands = [line for block in blocks("README", "sh") for line in block.splitlines()]
    assert [shlex.split(line)[1] for line in commands] == ["inspect", "serve", "calibrate", "classify"]
    assert triggerwall(commands[0]).exit_code == 0
    with Service(bundle=place / "my-model", data_dir=place / "data", device="cpu") as service:
        monkeypatch.setenv("TRIGGERWALL_URL", service.url)
        for command in commands[2:]:
            result = triggerwall(command)
            assert result.exit_code in (0, 1), result.output  # 1: it worked, and the news is bad
    assert "photo.png" in result.output


def test_every_page_is_linked() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README"}
    linked = set(re.findall(r"\]\((\w+)\.md\)", (PAGES / "README.md").read_text(encoding="utf-8")))
    assert pages <= linked
    assert os.path.exists(PAGES.parent / "settings.md")
