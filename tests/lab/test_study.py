import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from lab.cli import app
from lab.evaluate import Outcome, evaluate
from lab.metrics import auroc
from tests.lab.tiny import TINY_CNN, write_images

DEFAULTS = {"architecture": TINY_CNN, "target": 1, "epochs": 2, "batch_size": 20, "crop_padding": 0}
NAMES = ["tiny_cnn-badnets", "tiny_cnn-blend", "tiny_cnn-benign"]


@pytest.fixture
def study(archive: Path, tmp_path: Path) -> Path:
    return written(tmp_path, archive, runs=[{"attack": ["badnets", "blend", "none"]}])


def written(folder: Path, archive: Path, **changes: Any) -> Path:
    content = {"data": str(archive), "out": str(folder / "runs"), "defaults": DEFAULTS, **changes}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(path: Path, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["study", str(path), "--device", "cpu", *words])
    assert "Traceback" not in result.output
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def interrupt_after(evaluations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C, in the given evaluation; there is one after every epoch and one of the bundle."""
    calls = 0

    def counted(*arguments: Any) -> Outcome:
        nonlocal calls
        calls += 1
        if calls == evaluations:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    monkeypatch.setattr("lab.train.evaluate", counted)


def test_a_dry_run_lists_and_trains_nothing(study: Path) -> None:
    code, out, _ = run(study, "--dry-run")
    assert code == 0
    assert [line for line in out.splitlines() if "/3" in line] == [
        f"{number}/3 {name}: new, 30 steps" for number, name in enumerate(NAMES, 1)
    ]
    assert not (study.parent / "runs").exists()


def test_what_is_done_is_skipped_and_what_was_interrupted_goes_on(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = study.parent / "runs"
    with monkeypatch.context() as patch:
        interrupt_after(4, patch)  # two epochs and the outcome of the first run, one epoch of the second
        run(study)
    first = (runs / NAMES[0] / "weights.safetensors").stat().st_mtime_ns
    _, out, _ = run(study, "--dry-run")
    assert [line.split(": ")[1] for line in out.splitlines() if "/3" in line] == [
        "done", "interrupted, 30 steps", "new, 30 steps",
    ]  # fmt: skip
    code, out, _ = run(study)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith(f"{NAMES[0]}:")] == []
    assert "epoch 1" not in out
    assert (runs / NAMES[0] / "weights.safetensors").stat().st_mtime_ns == first
    for name in NAMES:
        record = json.loads((runs / name / "training.json").read_text())
        assert (record["settings"]["name"], record["settings"]["epochs"], record["excluded"]) == (name, 2, 0)
    assert "3/3 tiny_cnn-benign: done\n" in run(study, "--dry-run")[1]


def test_bundles_are_judged_once(tmp_path: Path) -> None:
    options = {"calibration": 99, "images": 21, "detectors": ["spc"], "scores": True}
    images = write_images(tmp_path / "more.zip", per_class=200)
    path = written(tmp_path, images, runs=[{"attack": ["badnets", "none"]}], evaluate=options)
    code, out, error = run(path)
    assert code == 0, out + error
    results = tmp_path / "runs" / "tiny_cnn-badnets" / "evaluation.json"
    figures = json.loads(results.read_text())
    assert [each["detector"] for each in figures] == ["spc"]
    assert 0 <= figures[0]["auroc"] <= 1
    benign = json.loads((tmp_path / "runs" / "tiny_cnn-benign" / "evaluation.json").read_text())
    assert (benign[0]["auroc"], benign[0]["tpr"], benign[0]["judged"]) == (None, {}, 21)
    with np.load(results.with_name("scores.npz")) as kept:
        assert kept["spc/benign"].shape == kept["predicted/benign"].shape == (21,)
        assert auroc(kept["spc/benign"], kept["spc/poisoned"]) == figures[0]["auroc"]
    assert run(path, "--dry-run")[1].count(": done") == 2
    results.unlink()
    assert "tiny_cnn-badnets: trained\n" in run(path, "--dry-run")[1]
    _, out, _ = run(path)
    assert "tiny_cnn-badnets: judged" in out
    again = json.loads(results.read_text())
    assert again[0].pop("seconds") != figures[0].pop("seconds")  # the one thing that is the machine's
    assert again == figures
    results.write_text("[]")  # it is there: it is not made again
    run(path)
    assert results.read_text() == "[]"


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        ([{"attack": "badnet"}], "run tiny_cnn-badnet: unknown attack 'badnet'"),
        ([{"target": [0, 3]}], "run tiny_cnn-badnets-target_3: target label 3 is not one of 0..2"),
        ([{"attack_settings": {"size": 12}}], "a 12-pixel patch does not fit into 12×12"),
        ([{"architecture": "zoo:resnet21"}], "zoo has no 'resnet21'"),
        ([{"attack": "tact"}], "covers (5, 7) must be among 0..2"),
        ([{"attack": "none", "objective": "psc1"}], "objective psc1 hides a backdoor"),
    ],
)
def test_a_mistake_in_the_last_run_stops_the_first(
    runs: list[dict[str, Any]], sentence: str, archive: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, archive, runs=[{"name": "good"}, *runs])
    code, _, error = run(path)
    assert code == 2
    assert sentence in error
    assert not (tmp_path / "runs").exists()


def test_images_that_no_run_can_use(archive: Path, tmp_path: Path) -> None:
    one_class = write_images(tmp_path / "one.zip", per_class=60, classes=1)
    assert "two are needed" in run(written(tmp_path, one_class, runs=[{"target": 0}]))[2]
    assert "neither a folder nor a zip" in run(written(tmp_path, tmp_path / "none.zip", runs=[{}]))[2]
    too_many = written(tmp_path, archive, runs=[{}], evaluate={"calibration": 99})
    assert "60 test images are too few to calibrate on 99" in run(too_many)[2]
    unknown = written(tmp_path, archive, runs=[{}], evaluate={"calibration": 99, "detectors": ["pcs"]})
    assert "unknown detector 'pcs'" in run(unknown)[2]
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_another_bundle_is_left_alone(archive: Path, tmp_path: Path) -> None:
    assert run(written(tmp_path, archive, runs=[{}]))[0] == 0
    other = {**DEFAULTS, "epochs": 3, "seed": 1}
    code, _, error = run(written(tmp_path, archive, defaults=other, runs=[{}]))
    assert code == 2
    assert "has a bundle with another epochs, seed: remove it or name this run" in error
    images = write_images(tmp_path / "other.zip", per_class=60)
    assert "has a bundle of other images" in run(written(tmp_path, images, runs=[{}]))[2]


def test_one_failure_does_not_stop_the_others(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / NAMES[0]).touch()  # a file where the first folder should be
    code, out, error = run(written(tmp_path, archive, runs=[{"attack": ["badnets", "blend"]}]))
    assert code == 2
    assert f"{NAMES[0]} failed: " in out
    assert f"{NAMES[1]}: BA" in out
    assert f"1 of 2 failed: {NAMES[0]}" in error


def test_every_file_is_made_once_and_what_is_missing_later(tmp_path: Path) -> None:
    options = {"calibration": 99, "images": 21, "detectors": ["spc"], "scores": True}
    images = write_images(tmp_path / "more.zip", per_class=200)
    runs = [{"attack": ["badnets", "none"]}]
    assert run(written(tmp_path, images, runs=runs, evaluate=options))[0] == 0
    folder = tmp_path / "runs" / "tiny_cnn-badnets"
    before = (folder / "evaluation.json").read_bytes()
    more = written(tmp_path, images, runs=runs, evaluate={**options, "noise": 0.02, "pictures": True})
    assert run(more, "--dry-run")[1].count(": trained\n") == 2
    code, out, error = run(more)
    assert code == 0, out + error
    assert (folder / "evaluation.json").read_bytes() == before
    noisy = json.loads((folder / "evaluation-noise.json").read_text())
    assert [(row["detector"], row["noise"]) for row in noisy] == [("spc", 0.02)]
    curves = json.loads((folder / "behaviour.json").read_text())
    assert (
        len(curves["amplification"]["poisoned"]["mean"]) == 2
    )  # one BatchNorm layer: none and one amplified
    assert (folder / "triggers.png").read_bytes()[1:4] == b"PNG"
    benign = {path.name for path in folder.with_name("tiny_cnn-benign").iterdir()}
    assert {"behaviour.json", "evaluation-noise.json"} <= benign
    assert "triggers.png" not in benign
    assert run(more, "--dry-run")[1].count(": done\n") == 2


def test_bundles_that_were_trained_elsewhere_are_judged_and_left_alone(tmp_path: Path) -> None:
    images = write_images(tmp_path / "more.zip", per_class=200)
    assert run(written(tmp_path, images, runs=[{"attack": ["badnets", "none"]}]))[0] == 0
    trained = tmp_path / "runs"
    (trained / "unfinished").mkdir()
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    options = {"calibration": 99, "images": 21, "detectors": ["spc"]}
    path = written(tmp_path, images, out=str(tmp_path / "judged"), bundles=[f"{trained}/*"], evaluate=options)
    assert run(path, "--dry-run")[1].count(": trained\n") == 2
    code, out, error = run(path)
    assert code == 0, out + error
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    judged = tmp_path / "judged" / "tiny_cnn-badnets"
    assert sorted(path.name for path in judged.iterdir()) == ["evaluation.json", "training.json"]
    assert run(path, "--dry-run")[1].count(": done\n") == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bundles": ["nowhere/*"]}, "nowhere/* names no folder with a training.json"),
        ({"bundles": ["models/demo"]}, "bundle models/demo: takes images of shape (1, 28, 28)"),
    ],
)
def test_bundles_that_cannot_be_judged(
    change: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    options = {"calibration": 99, "images": 10}
    images = write_images(tmp_path / "more.zip", per_class=200)
    code, _, error = run(written(tmp_path, images, evaluate=options, **change))
    assert code == 2
    assert sentence in error


def test_judging_without_training(tmp_path: Path) -> None:
    images = write_images(tmp_path / "more.zip", per_class=200)
    options = {"calibration": 99, "images": 21, "detectors": ["spc"]}
    path = written(tmp_path, images, runs=[{"attack": ["badnets", "none"]}], evaluate=options)
    assert "has no trained bundle of this study" in run(path, "--no-train")[2]
    assert run(written(tmp_path, images, runs=[{"attack": "badnets"}]))[0] == 0
    path = written(tmp_path, images, runs=[{"attack": ["badnets", "none"]}], evaluate=options)
    code, out, error = run(path, "--no-train")
    assert code == 0, out + error
    assert "1/1 tiny_cnn-badnets: trained" in out
    assert (tmp_path / "runs" / "tiny_cnn-badnets" / "evaluation.json").exists()
    assert not (tmp_path / "runs" / "tiny_cnn-benign").exists()
    own = str(tmp_path / "runs" / "tiny_cnn-badnets")
    code, out, _ = run(path, "--no-train", "--bundle", own, "--out", str(tmp_path / "other"))
    assert (code, (tmp_path / "other" / "tiny_cnn-badnets" / "evaluation.json").exists()) == (0, True)
    gone = run(path, "--data", str(tmp_path / "gone.zip"), "--no-train")
    assert "neither a folder nor a zip" in gone[2]


def test_a_precision_for_all_runs_can_be_given(study: Path) -> None:
    assert run(study, "--precision", "float32")[0] == 0
    record = json.loads(
        (study.parent / "runs" / "tiny_cnn-benign" / "training.json").read_text(encoding="utf-8")
    )
    assert record["settings"]["precision"] == "float32"


def test_other_defaults_can_be_given(study: Path) -> None:
    assert run(study, "--setting", "epochs=1", "--setting", "learning_rate=0.01")[0] == 0
    record = json.loads(
        (study.parent / "runs" / "tiny_cnn-benign" / "training.json").read_text(encoding="utf-8")
    )
    assert (record["settings"]["epochs"], record["settings"]["learning_rate"]) == (1, 0.01)
    code, _, error = run(study, "--setting", "epochs")
    assert (code, "--setting takes NAME=VALUE" in error) == (2, True)
