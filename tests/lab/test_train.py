import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lab.attacks import ATTACKS
from lab.attacks.badnets import BadNets
from lab.blueprint import bundle_spec, channel_statistics, first_network, new_network
from lab.data import ImageSet, LabError, open_images
from lab.evaluate import evaluate
from lab.record import load_attack
from lab.settings import TrainSettings
from lab.train import check, train
from models.architecture import build_network
from models.loading import load_network
from tests.lab.tiny import SIDE, TINY_CNN

CPU = torch.device("cpu")
SETTINGS = TrainSettings(
    name="tiny", architecture=TINY_CNN, target=1, epochs=6, batch_size=20, crop_padding=0, seed=3
)


@pytest.fixture(scope="module")
def images(archive: Path) -> tuple[ImageSet, ImageSet]:
    return open_images(str(archive), "train"), open_images(str(archive), "test")


def changed(**changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_backdoor_is_trained_and_recorded(images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    data, test = images
    outcome = train(SETTINGS, data, test, tmp_path / "out", CPU, {"data": "bars.zip"})
    assert outcome.benign_accuracy >= 0.9
    assert outcome.attack_success_rate is not None
    assert outcome.attack_success_rate >= 0.9
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "model.yaml", "training.json", "weights.safetensors",
    }  # fmt: skip
    record = json.loads((tmp_path / "out" / "training.json").read_text(encoding="utf-8"))
    assert record["settings"] == SETTINGS.model_dump() | {"attack_settings": {"size": 3, "margin": 1}}
    assert record["triggered_images"] == 30
    assert load_attack(tmp_path / "out") == BadNets()
    assert record["training_set_sha256"] == data.fingerprint()
    assert (record["training_images"], record["test_images"], record["data"]) == (300, 60, "bars.zip")
    served = load_network(tmp_path / "out")
    assert served.info.labels == ("0", "1", "2")
    assert evaluate(served.network, test, ATTACKS["badnets"](), 1) == outcome
    assert record["benign_accuracy"] == outcome.benign_accuracy
    assert record["attack_success_rate"] == outcome.attack_success_rate


def test_the_seed_decides_the_weights(images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    for folder, seed in [("a", 3), ("b", 3), ("c", 4)]:
        torch.manual_seed(hash(folder))  # what ran before must not matter
        train(changed(epochs=2, seed=seed), *images, tmp_path / folder, CPU, {})
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")


def test_a_benign_model_has_no_attack_success_rate(images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    outcome = train(changed(attack=None, epochs=1), *images, tmp_path, CPU, {})
    assert outcome.attack_success_rate is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attack": "badnet"}, "unknown attack 'badnet'; known: none, .*badnets.*, blend"),
        ({"attack_settings": {"sice": 3}}, "badnets: unknown setting 'sice'; known: size, margin"),
        ({"attack_settings": {"size": "3"}}, "badnets: size is of type int, such as 3, not '3'"),
        ({"attack_settings": {"size": 12}}, "badnets: a 12-pixel patch does not fit"),
        ({"target": 3}, r"target label 3 is not one of 0\.\.2"),
        ({"target": -1}, "target label -1"),
        ({"batch_size": 301}, "300 training images make 0 batches of 301"),
        ({"batch_size": 75, "epochs": 1}, "make 4 batches of 75 in 1 epochs; at least 5 are needed"),
        ({"architecture": "zoo:resnet21"}, "zoo has no 'resnet21'"),
        ({"architecture": "resnet20"}, "architecture: String should match"),
        ({"name": "my model"}, "name: String should match"),
        ({"architecture": "zoo:badnets_cnn"}, "could not be built.*at least 16×16, not 12"),
        ({"architecture": "tests.lab.tiny:two_headed"}, r"does not return logits \(B, 3\) while it trains"),
        ({"architecture": "torchvision:alexnet"}, r"fails on images \(3, 12, 12\)"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    changes: dict[str, Any], sentence: str, images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    with pytest.raises(LabError, match=sentence):
        train(changed(**changes), *images, tmp_path / "out", CPU, {})
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_trained_on(images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    data, test = images
    small = ImageSet(data.images[..., :3, :3], data.labels, data.classes)
    small_test = ImageSet(test.images[..., :3, :3], test.labels, test.classes)
    ones = data.take(data.labels == 1)
    cases = [
        (ones, test, "all of class '1'; two are needed"),
        (
            data,
            test.take(test.labels == 1),
            "no test image is one that badnets would attack with target label 1",
        ),
        (small, small_test, "badnets: a 3-pixel patch does not fit into 3×3"),
        (data, small_test, "differ in their classes or in their size"),
        (data, ImageSet(test.images, test.labels, ("0", "1", "9")), "differ in their classes"),
    ]
    for training, testing, sentence in cases:
        with pytest.raises(LabError, match=sentence):
            train(SETTINGS, training, testing, tmp_path / "out", CPU, {})
    assert not (tmp_path / "out").exists()


def test_channel_statistics_by_hand() -> None:
    images = torch.zeros(2, 2, 1, 2, dtype=torch.uint8)
    images[:, 0] = torch.tensor([0, 255], dtype=torch.uint8)
    images[:, 1] = 51
    mean, std = channel_statistics(images)
    assert mean == (0.5, 0.2)
    assert std == (0.5774, 0.0001)  # √(4 · 0.25 / 3); a constant channel must not divide by zero


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("zoo:resnet20", {"num_classes": 3, "channels": 3}),
        ("zoo:badnets_cnn", {"num_classes": 3, "channels": 3, "size": SIDE}),
        ("torchvision:resnet18", {"num_classes": 3}),
    ],
)
def test_an_architecture_gets_the_arguments_it_knows(
    architecture: str, expected: dict[str, int], images: tuple[ImageSet, ImageSet]
) -> None:
    spec = bundle_spec(changed(architecture=architecture), images[0])
    assert spec.architecture_args == expected
    assert spec.input.size == (SIDE, SIDE)


def test_trying_a_network_out_leaves_it_as_it_was_built(images: tuple[ImageSet, ImageSet]) -> None:
    spec = bundle_spec(SETTINGS, images[0])
    torch.manual_seed(3)
    built = build_network(spec.architecture, spec.architecture_args).state_dict()
    tried = new_network(spec, seed=3).state_dict()
    assert built.keys() == tried.keys()
    assert all(torch.equal(built[name], tried[name]) for name in built)


def test_a_checkpoint_of_another_run_is_refused(
    images: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, test = images
    interrupt_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(SETTINGS, data, test, tmp_path, CPU, {})
    with pytest.raises(LabError, match=r"checkpoint\.pt is of other settings"):
        train(changed(seed=4), data, test, tmp_path, CPU, {})
    with pytest.raises(LabError, match=r"checkpoint\.pt is of other images"):
        train(SETTINGS, data.take(torch.arange(280)), test, tmp_path, CPU, {})
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(state | {"settings": '{"wings": 2}'}, tmp_path / "checkpoint.pt")
    with pytest.raises(LabError, match=r"checkpoint\.pt is of other settings"):
        train(SETTINGS, data, test, tmp_path, CPU, {})
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(LabError, match=r"checkpoint\.pt cannot be read"):
        train(SETTINGS, data, test, tmp_path, CPU, {})


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the evaluation that follows the given epoch's checkpoint be cut off, as by Ctrl-C."""
    calls = 0

    def evaluation(*_args: object) -> str:
        nonlocal calls
        calls += 1
        if calls == epochs:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr("lab.train.evaluate", evaluation)


def test_an_interrupted_run_ends_with_the_same_weights(
    images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    settings = changed(crop_padding=1, epochs=3)
    train(settings, *images, tmp_path / "whole", CPU, {})
    for epoch in (1, 3):  # 3: nothing is left but to write the bundle
        folder = tmp_path / f"cut{epoch}"
        with pytest.MonkeyPatch.context() as patch:
            interrupt_after(epoch, patch)
            with pytest.raises(KeyboardInterrupt):
                train(settings, *images, folder, CPU, {})
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] == epoch
        train(settings, *images, folder, CPU, {})
        assert same_weights(tmp_path / "whole", folder)


def test_a_checkpoint_from_before_a_setting_was_added_is_gone_on_with(
    images: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            train(SETTINGS, *images, tmp_path, CPU, {})
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    older = {key: value for key, value in json.loads(state["settings"]).items() if key != "objective"}
    torch.save(state | {"settings": json.dumps(older)}, tmp_path / "checkpoint.pt")
    assert train(SETTINGS, *images, tmp_path, CPU, {}).attack_success_rate is not None


def test_a_run_may_start_from_a_published_classifier(
    images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    data, test = images
    clean, bad = tmp_path / "clean", tmp_path / "bad"
    train(changed(name="published", attack=None), data, test, clean, CPU, {})
    settings = changed(start_from=str(clean), epochs=2, learning_rate=0.05)
    start = first_network(bundle_spec(settings, data), settings).state_dict()
    for name, value in load_file(clean / "weights.safetensors").items():
        assert torch.equal(start[name], value.to(start[name].dtype))
    outcome = train(settings, data, test, bad, CPU, {})
    assert outcome.benign_accuracy >= 0.9
    record = json.loads((bad / "training.json").read_text(encoding="utf-8"))
    assert record["settings"]["start_from"] == str(clean)
    assert record["start_sha256"] == load_network(clean).info.digest


def test_a_start_that_does_not_fit_is_refused_before_training(
    images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    data, test = images
    clean = tmp_path / "clean"
    train(changed(attack=None, epochs=1), data, test, clean, CPU, {})
    with pytest.raises(LabError, match="is not of zoo:resnet20"):
        check(changed(architecture="zoo:resnet20", start_from=str(clean)), data, test)
    with pytest.raises(LabError, match=r"start_from: .*gone"):
        check(changed(start_from=str(tmp_path / "gone")), data, test)
    other = ImageSet(data.images, data.labels, ("x", "y", "z"))
    with pytest.raises(LabError, match="these images and classes"):
        check(changed(start_from=str(clean)), other, ImageSet(test.images, test.labels, other.classes))
    weights = clean / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:50])
    with pytest.raises(LabError, match=r"start_from: .*not a readable"):
        check(changed(start_from=str(clean)), data, test)
