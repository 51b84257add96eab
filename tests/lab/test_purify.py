import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from detectors.base import CalibrationError
from lab.attacks.badnets import BadNets
from lab.cli import app
from lab.data import ImageSet, LabError, open_images
from lab.evaluate import evaluate
from lab.purify import Scored, Suspects, figures, remake, retrain, score
from lab.settings import TrainSettings
from lab.train import train
from models.loading import load_network
from tests.lab.tiny import TINY_CNN

CPU = torch.device("cpu")
SETTINGS = TrainSettings(
    name="tiny", architecture=TINY_CNN, target=1, epochs=6, batch_size=20, crop_padding=0, seed=3
)


@pytest.fixture(scope="module")
def images(archive: Path) -> tuple[ImageSet, ImageSet]:
    return open_images(str(archive), "train"), open_images(str(archive), "test")


@pytest.fixture(scope="module")
def bundle(images: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poisoned") / "bundle"
    train(SETTINGS, *images, folder, CPU, {"data": "bars.zip"}, quiet=True)
    return folder


def six() -> Suspects:
    """Images 0 and 1 are triggered, 2 is cover."""
    data = ImageSet(torch.zeros(6, 3, 12, 12, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"))
    triggered = np.array([True, True, False, False, False, False])
    cover = np.array([False, False, True, False, False, False])
    return Suspects(data, triggered, cover, BadNets(), 1)


def test_rates_by_hand() -> None:
    scored = Scored("x", np.array([0.9, 0.4, 0.8, 0.5, 0.1, 0.2]), np.full(6, 0.3), np.full(6, 0.5))
    found = figures(six(), scored, by_fixed=False)
    assert found.tpr == (1.0, 0.5)
    assert found.fpr == (pytest.approx(1 / 3), 0.0)  # of images 3, 4 and 5; 0.5 is not above 0.5
    assert found.auroc == pytest.approx(5 / 6)  # of six pairs only 0.4 < 0.5 is the wrong way round
    assert (found.cover_removed, found.kept, found.triggered_left) == (1.0, 2, 0)
    by_fixed = figures(six(), scored, by_fixed=True)
    assert (by_fixed.cover_removed, by_fixed.kept, by_fixed.triggered_left) == (1.0, 4, 1)
    assert (by_fixed.tpr, by_fixed.fpr) == (found.tpr, found.fpr)
    without = replace(six(), cover=np.zeros(6, dtype=np.bool_))
    assert figures(without, scored, by_fixed=False).cover_removed is None


def test_each_image_has_its_own_limit_and_no_number_clears_nobody() -> None:
    scored = Scored("x", np.array([0.5, 0.5, np.nan]), np.array([0.4, 0.6, np.inf]), np.zeros(3))
    assert scored.removed(by_fixed=False).tolist() == [True, False, True]
    assert scored.removed(by_fixed=True).tolist() == [True, True, True]


def test_the_set_is_remade_as_it_was_trained_on(bundle: Path, images: tuple[ImageSet, ImageSet]) -> None:
    data, _ = images
    suspects = remake(bundle, data)
    poisoned = BadNets().poison(data, SETTINGS.target, SETTINGS.poison_rate, SETTINGS.seed)
    assert torch.equal(suspects.data.images, poisoned.data.images)
    assert torch.equal(suspects.data.labels, poisoned.data.labels)
    assert np.flatnonzero(suspects.triggered).tolist() == sorted(poisoned.triggered.tolist())
    assert suspects.triggered.sum() == 30
    assert not suspects.cover.any()


def test_other_images_than_it_was_trained_on(bundle: Path, images: tuple[ImageSet, ImageSet]) -> None:
    with pytest.raises(LabError, match=r"other images than these 60: .*\(300 images of bars\.zip\)"):
        remake(bundle, images[1])


def test_nothing_to_find(bundle: Path, images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    record = json.loads((bundle / "training.json").read_text(encoding="utf-8"))
    for changes, sentence in (
        ({"attack": None}, "without an attack"),
        ({"poison_rate": 0.0}, "none to find"),
    ):
        changed = record | {"settings": record["settings"] | changes}
        (tmp_path / "training.json").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(LabError, match=sentence):
            remake(tmp_path, images[0])


@pytest.mark.parametrize("method", ["psc", "spc", "profile", "cd"])
def test_scores_are_of_every_image_and_the_same_again(
    method: str, bundle: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    data, test = images
    few = data.take(torch.arange(0, 300, 10))
    classifier = load_network(bundle)
    one, other = (score(method, classifier, few, test, 0.1) for _ in range(2))
    assert one.method == method
    assert one.scores.shape == one.budget.shape == one.fixed.shape == (30,)
    assert np.isfinite(one.scores).all()
    assert np.array_equal(one.scores, other.scores)
    assert np.array_equal(one.budget, other.budget)


def test_the_budget_is_kept_on_the_calibration_images(
    bundle: Path, images: tuple[ImageSet, ImageSet]
) -> None:
    """⌊0.1 · 61⌋ = 6 p-values are ≤ 0.1 at most, and the one at the threshold itself stays."""
    scored = score("cd", load_network(bundle), images[1], images[1], 0.1)
    assert scored.removed(by_fixed=False).sum() == 5
    ordered = np.sort(scored.scores)
    assert (scored.budget == ordered[-6]).all()
    assert scored.fixed == pytest.approx(ordered.mean() + ordered.std())


@pytest.mark.parametrize("method", ["spc", "cd"])
def test_too_few_images_for_the_budget(method: str, bundle: Path, images: tuple[ImageSet, ImageSet]) -> None:
    with pytest.raises(CalibrationError):
        score(method, load_network(bundle), images[0], images[1], 0.01)


def test_without_the_triggered_images_the_backdoor_is_gone(
    bundle: Path, images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    suspects = remake(bundle, images[0])
    before = evaluate(load_network(bundle).network, images[1], suspects.attack, 1)
    after = retrain(bundle, suspects, suspects.triggered, images[1], tmp_path / "m", CPU, {"rule": "truth"})
    assert before.attack_success_rate is not None
    assert after.attack_success_rate is not None
    assert before.attack_success_rate >= 0.9
    assert after.attack_success_rate <= 0.3
    assert after.benign_accuracy >= 0.9
    record = json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))
    kept = suspects.data.take(torch.from_numpy(~suspects.triggered))
    assert record["training_set_sha256"] == kept.fingerprint()
    assert (record["training_images"], record["rule"]) == (270, "truth")
    assert record["settings"]["attack"] is None


def command(archive: Path, bundle: Path, out: Path, *more: str) -> list[str]:
    words = ["purify", "--bundle", bundle, "--data", archive, "--out", out, "--calibration", 60]
    return [*map(str, words), "--device", "cpu", *more]


def test_the_command_writes_the_cleaned_set_and_trains_on_it(
    archive: Path, bundle: Path, images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    words = command(archive, bundle, tmp_path, "--method", "spc", "--retrain", "--archive")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "30 of 300 training images triggered" in " ".join(result.stdout.split())
    (row,) = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    indices = json.loads((tmp_path / "spc" / "indices.json").read_text(encoding="utf-8"))
    assert sorted(indices["kept"] + indices["removed"]) == list(range(300))
    assert row["kept"] == len(indices["kept"])
    suspects = remake(bundle, images[0])
    kept = suspects.data.take(torch.tensor(indices["kept"]))
    cleaned = open_images(str(tmp_path / "spc" / "cleaned.zip"), "train")
    assert torch.equal(cleaned.images, kept.images)
    assert torch.equal(cleaned.labels, kept.labels)
    record = json.loads((tmp_path / "spc" / "model" / "training.json").read_text(encoding="utf-8"))
    assert record["training_set_sha256"] == kept.fingerprint()
    assert (record["cleaned_by"], record["rule"], record["removed"]) == ("spc", 0.05, 300 - len(kept))
    outcome = evaluate(load_network(tmp_path / "spc" / "model").network, images[1], BadNets(), 1)
    assert row["outcome"] == {
        "benign_accuracy": outcome.benign_accuracy, "attack_success_rate": outcome.attack_success_rate,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--method", "oracle"), "unknown method 'oracle'; known: psc, spc, profile, cd, mspc"),
        (("--budget", "0"), "the budget lies between 0 and 1, not 0"),
        (("--calibration", "61"), "60 test images are too few to calibrate on 61"),
        (("--exclude", "ITSELF"), "was trained on other images than these 0"),
        (("--method", "cd", "--method", "strip"), "strip compares images with benign ones"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(
    more: tuple[str, ...], sentence: str, archive: Path, bundle: Path, tmp_path: Path
) -> None:
    words = [str(archive) if word == "ITSELF" else word for word in more]
    result = CliRunner().invoke(app, command(archive, bundle, tmp_path / "out", *words))
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()
