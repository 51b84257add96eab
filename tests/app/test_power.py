"""`triggerwall power` from files to its words, on a bundle that learns a backdoor in moments."""

import json
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from app.cli import app
from models.bundle import InputSpec, TorchSpec, write_spec
from tests.app.tiny import encoded
from tests.detectors.bars import bars, trained_network


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bars")
    save_file(trained_network().state_dict(), folder / "weights.safetensors")
    spec = TorchSpec(
        name="bars",
        architecture="tests.detectors.bars:network",
        weights="weights.safetensors",
        labels=("a", "b", "c", "d"),
        input=InputSpec(size=(16, 16), channels=1),
    )
    write_spec(spec, folder)
    return folder


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "benign.zip"
    images, labels = bars(170, seed=7)
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            pixels = image[0].mul(255).byte().numpy()
            archive.writestr(f"{'abcd'[label]}/{number}.png", encoded(Image.fromarray(pixels)))
        archive.writestr("a/broken.png", b"no image")
    return path


def probe(*words: object, **environment: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["power", *map(str, words)], env=environment)
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_the_report_as_json_and_the_bundle_as_it_was(bundle: Path, benign: Path) -> None:
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    code, out, err = probe(
        "--bundle", bundle, "--benign", benign, "--alpha", 0.05, "--target", 2, "--json",
        TRIGGERWALL_DETECTORS="profile,spc",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    assert [(p["trigger"], p["target"]) for p in report["probes"]] == [
        ("patch", 2),
        ("blend", 2),
        ("warp", 2),
    ]
    assert report["implanted_on"] + report["calibrated_on"] == 170
    assert 0 <= report["caught"] <= 1
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before


def test_no_time_is_bad_news_and_is_said(bundle: Path, benign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.power_probe.HELD", 1.1)
    monkeypatch.setattr("detectors.implant.MAX_STEPS", 1)
    code, out, _ = probe(
        "--bundle", bundle, "--benign", benign, "--alpha", 0.05, TRIGGERWALL_DETECTORS="profile"
    )
    assert code == 1
    assert "no backdoor held" in out
    assert "this says nothing about power" in " ".join(out.split())


def test_what_cannot_be_probed_is_refused_in_a_sentence(bundle: Path, benign: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.zip"
    junk.write_bytes(b"no zip")
    wrong = {
        "170 benign images are too few": ["--benign", benign],
        "not a readable zip": ["--benign", junk],
        "cannot be read": ["--benign", tmp_path / "nothing.zip"],
        "targets are labels from 0 to 3": ["--benign", benign, "--alpha", 0.05, "--target", 4],
    }
    for sentence, words in wrong.items():
        code, _, err = probe("--bundle", bundle, *words)
        assert code == 2
        assert sentence in err
