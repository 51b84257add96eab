import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from lab.attacks import ATTACKS, Attack
from lab.attacks.badnets import BadNets
from lab.attacks.blend import Blend
from lab.data import ImageSet, LabError, open_images
from lab.record import build_attack, load_attack, prepared_attack, read_settings, write_record
from lab.settings import TrainSettings
from lab.train import train
from models.loading import load_network
from tests.lab.tiny import TINY_CNN

CPU = torch.device("cpu")
SETTINGS = TrainSettings(
    name="tiny", architecture=TINY_CNN, attack="learnt", target=1, epochs=1, batch_size=20, crop_padding=0
)


@dataclass(frozen=True)
class Learnt(Attack):
    """Learns the mean image of the target class, and mixes it in."""

    name: ClassVar[str] = "learnt"
    learnings: ClassVar[list[int]] = []
    strength: float = 0.5
    mean: Tensor | None = None

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> "Learnt":
        self.learnings.append(seed)
        if not (data.labels == target).any():
            raise ValueError("there are no images of the target class")
        return replace(self, mean=data.images[data.labels == target].float().mean(0))

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.mean is None else {"mean": self.mean}

    def restored(self, tensors: Any) -> "Learnt":
        return replace(self, mean=tensors["mean"])

    def apply(self, images: Tensor) -> Tensor:
        assert self.mean is not None
        return ((1 - self.strength) * images + self.strength * self.mean).to(torch.uint8)

    def implant(self, network: nn.Module, data: ImageSet, target: int) -> None:
        linear = next(m for m in network.modules() if isinstance(m, nn.Linear))
        nn.init.zeros_(linear.weight)
        linear.bias.data = torch.arange(len(linear.bias)).float()


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> type[Learnt]:
    monkeypatch.setitem(ATTACKS, "learnt", Learnt)
    Learnt.learnings.clear()
    return Learnt


@pytest.fixture(scope="module")
def images(archive: Path) -> tuple[ImageSet, ImageSet]:
    return open_images(str(archive), "train"), open_images(str(archive), "test")


def test_settings_replace_the_papers_values() -> None:
    assert build_attack("badnets", {"size": 5}) == BadNets(size=5)
    assert build_attack("blend", {"alpha": 1, "seed": 2}) == Blend(alpha=1.0, seed=2)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("bad", {}, "unknown attack 'bad'; known: none, "),
        ("blend", {"beta": 1}, "blend: unknown setting 'beta'; known: alpha, seed"),
        ("blend", {"seed": 1.5}, "blend: seed is of type int, such as 666, not 1.5"),
        ("blend", {"seed": True}, "blend: seed is of type int"),
    ],
)
def test_settings_that_cannot_be(name: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        build_attack(name, settings)


def test_the_record_gives_the_attack_back(tmp_path: Path) -> None:
    settings = TrainSettings(name="x", attack="blend", attack_settings={"alpha": 0.3}, target=4)
    write_record(tmp_path, settings, {"benign_accuracy": 0.5})
    assert load_attack(tmp_path) == Blend(alpha=0.3)
    assert read_settings(tmp_path).target == 4
    assert json.loads((tmp_path / "training.json").read_text())["settings"]["attack_settings"] == {
        "alpha": 0.3, "seed": 666,
    }  # fmt: skip


def test_a_record_from_before_there_were_attack_settings(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text('{"settings": {"name": "old", "attack": "badnets", "target": 1}}')
    assert load_attack(tmp_path) == BadNets()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no training.json"),
        ("{", "is no record of a training run"),
        ("[]", "is no record of a training run"),
        ('{"settings": {"name": "x", "attack": null}}', "trained without an attack"),
        ('{"settings": {"name": "x", "attack": "gone"}}', "unknown attack 'gone'"),
        ('{"settings": {"name": "x", "wings": 2}}', "is no record .*Extra inputs"),
    ],
)
def test_a_bundle_without_a_usable_record(content: str | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "training.json").write_text(content)
    with pytest.raises(LabError, match=sentence):
        load_attack(tmp_path)


def test_what_was_learnt_is_kept_beside_the_bundle_and_the_weights_are_changed(
    learnt: type[Learnt], images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    data, test = images
    train(SETTINGS, data, test, tmp_path, CPU, {})
    attack = load_attack(tmp_path)
    assert isinstance(attack, Learnt)
    assert attack.mean is not None
    assert torch.equal(attack.mean, data.images[data.labels == 1].float().mean(0))
    assert learnt.learnings == [0]
    logits = load_network(tmp_path).logits(test.images[:5].float() / 255)
    assert torch.equal(logits, torch.arange(3).float().expand(5, 3))  # as implanted


def test_an_interrupted_run_does_not_learn_again(
    learnt: type[Learnt], images: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    data, _ = images
    first = prepared_attack(Learnt(), data, SETTINGS, tmp_path, CPU)
    again = prepared_attack(Learnt(), data, SETTINGS, tmp_path, CPU)
    assert learnt.learnings == [0]
    assert torch.equal(first.tensors()["mean"], again.tensors()["mean"])
    for other in (SETTINGS.model_copy(update={"seed": 1}), SETTINGS.model_copy(update={"attack": "badnets"})):
        with pytest.raises(LabError, match=r"trigger\.safetensors is of another run"):
            prepared_attack(build_attack(other.attack or "", {}), data, other, tmp_path, CPU)
    with pytest.raises(LabError, match="is of another run"):
        prepared_attack(Learnt(), data.take(torch.arange(100)), SETTINGS, tmp_path, CPU)
    (tmp_path / "trigger.safetensors").write_bytes(b"damaged")
    with pytest.raises(LabError, match="cannot be read"):
        prepared_attack(Learnt(), data, SETTINGS, tmp_path, CPU)


def test_images_that_nothing_can_be_learnt_from(images: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    data, _ = images
    others = data.take(data.labels != 1)
    with pytest.raises(LabError, match="learnt: there are no images of the target class"):
        prepared_attack(Learnt(), others, SETTINGS, tmp_path, CPU)
    assert not list(tmp_path.iterdir())
