from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from lab.attacks import Attack
from lab.attacks.badnets import BadNets
from lab.data import ImageSet


@pytest.fixture
def data() -> ImageSet:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).repeat(1, 3, 6, 6)
    return ImageSet(images, torch.arange(40) % 4, ("a", "b", "c", "d"))


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.1, 4), (0.11, 4), (0.24, 10), (1.0, 40)])
def test_exactly_the_chosen_images_change(rate: float, count: int, data: ImageSet) -> None:
    images, labels = data.images.clone(), data.labels.clone()
    result = BadNets().poison(data, target=2, rate=rate, seed=5)
    poisoned, chosen = result.data, result.triggered
    assert len(result.cover) == 0
    assert len(chosen) == len(set(chosen.tolist())) == count
    assert torch.equal(poisoned.images[chosen], BadNets().apply(images[chosen]))
    assert (poisoned.labels[chosen] == 2).all()
    others = torch.ones(40, dtype=torch.bool)
    others[chosen] = False
    assert torch.equal(poisoned.images[others], images[others])
    assert torch.equal(poisoned.labels[others], labels[others])
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)
    assert poisoned.classes == data.classes


def test_the_seed_decides_which(data: ImageSet) -> None:
    def chosen(seed: int) -> list[int]:
        return BadNets().poison(data, 0, 0.25, seed).triggered.tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)


def test_what_an_attack_does_unless_it_says_otherwise(data: ImageSet) -> None:
    attack = BadNets(size=2)
    assert attack.victims(torch.tensor([0, 1, 2, 1]), 1).tolist() == [True, False, True, False]
    assert attack.prepared(data, 0, 0, torch.device("cpu")) == attack
    assert attack.restored(attack.tensors()) == attack
    assert torch.equal(attack.online(data.images, torch.Generator()), data.images)
    assert attack.settings() == {"size": 2, "margin": 1}
    with pytest.raises(ValueError, match="does not fit into 6×6"):
        BadNets(size=7).check(data, 0)


@dataclass(frozen=True)
class Learnt(Attack):
    """An attack whose trigger is the mean image of the target class."""

    name: ClassVar[str] = "learnt"
    strength: float = 1.0
    mean: torch.Tensor | None = None

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> "Learnt":
        return replace(self, mean=data.images[data.labels == target].float().mean(0))


def test_what_was_learnt_is_no_setting_and_is_not_needed_to_be_checked(data: ImageSet) -> None:
    Learnt().check(data, 0)  # would raise: `apply` is not there
    assert Learnt().prepared(data, 0, 0, torch.device("cpu")).settings() == {"strength": 1.0}
