"""Every example of docs/clients.md and docs/backends/remote.md, run as it stands against a real gateway.

Only the address and the model's name are replaced.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from app.cli import app
from app.settings import Settings
from models.bundle import read_spec
from models.loading import load_bundle
from models.remote import RemoteClassifier
from tests.app.service import Service
from tests.app.tiny import encoded, form, pixels, pngs, write_bundle
from tests.peers import PATIENT, python_with

ROOT = Path(__file__).parents[2]
CLIENTS = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
REMOTE = (ROOT / "docs" / "backends" / "remote.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


PYTHON, SHELL = blocks(CLIENTS, "python"), blocks(CLIENTS, "sh")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    bundle, data = write_bundle(tmp_path_factory.mktemp("bundle")), tmp_path_factory.mktemp("data")
    with Service(bundle=bundle, data_dir=data, device="cpu", alpha=0.4, detectors=["spc"]) as running:
        assert running.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "image.png").write_bytes(encoded(pixels(1)[0]))
    (tmp_path / "photos").mkdir()
    for number, png in enumerate(pngs(5, seed=3)):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png)
    return tmp_path


def run(command: list[str], example: str, service: Service, folder: Path) -> str:
    text = example.replace("127.0.0.1:8000", service.url.removeprefix("http://")).replace("my-model", "tiny")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_page_has_the_examples_that_are_meant() -> None:
    assert len(PYTHON) == 4
    assert ["tritonclient" in PYTHON[0], "kserve" in PYTHON[1]] == [True, True]
    assert len(SHELL) == 2


@pytest.mark.parametrize("number", [0, 2, 3], ids=["triton", "client", "asynchronous client"])
def test_python(service: Service, folder: Path, number: int) -> None:
    said = run([sys.executable, "-c"], PYTHON[number], service, folder)
    assert any(verdict in said for verdict in ("accepted", "rejected", "photos/"))
    if number == 2:
        assert "5 of 5" in said


@PATIENT
def test_kserve(service: Service, folder: Path) -> None:
    python = python_with("kserve", "kserve==0.21.0")
    assert "verdict" in run([str(python), "-c"], PYTHON[1], service, folder)


@pytest.mark.parametrize("example", SHELL)
def test_shell(service: Service, folder: Path, example: str) -> None:
    said = run(["bash", "-euc"], example, service, folder)
    assert "verdict" in said
    assert "error" not in said


def test_remote_bundles(tmp_path: Path) -> None:
    bundles = blocks(REMOTE, "yaml")
    assert [yaml.safe_load(text).get("protocol", "v2") for text in bundles] == ["v2", "json"]
    for text in bundles:
        (tmp_path / "model.yaml").write_text(text, encoding="utf-8")
        classifier = load_bundle(tmp_path)
        assert isinstance(classifier, RemoteClassifier)
        assert classifier.num_classes in (2, 10)


def test_inspect_says_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(blocks(REMOTE, "yaml")[0], encoding="utf-8")
    said = CliRunner().invoke(app, ["inspect", "--bundle", str(tmp_path)]).output
    for name in ("spc", "nspc", "label_profile", "teco", "frequency"):
        assert re.search(rf"\b{name}\b\W+yes\b", said), said
    for name in ("profile", "psc", "strip", "shrinkpad", "deepsweep"):
        assert re.search(rf"\b{name}\b\W+no\b", said), said
    assert read_spec(tmp_path).name == "my-model"


def test_settings_on_the_page_exist() -> None:
    named = set(re.findall(r"`(remote_[a-z_]+)`", REMOTE))
    assert len(named) >= 7
    assert named <= set(Settings.model_fields)
