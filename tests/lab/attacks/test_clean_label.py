"""What the three clean-label attacks have in common."""

from typing import Any

import pytest
import torch

from lab.attacks.clean_label import CleanLabel
from lab.attacks.label_consistent import LabelConsistent
from lab.attacks.narcissus import Narcissus
from lab.attacks.tuap import Tuap
from tests.lab.attacks.bars import CPU, bars

KINDS: list[tuple[type[CleanLabel], dict[str, Any]]] = [
    (LabelConsistent, {"steps": 2}), (Narcissus, {"steps": 5}), (Tuap, {"steps": 5}),
]  # fmt: skip


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0].name)
def attack(request: pytest.FixtureRequest) -> CleanLabel:
    kind, settings = request.param
    return kind(**settings)


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.1, 12), (0.5, 40), (1.0, 40)])
def test_only_images_of_the_target_change_and_no_label(attack: CleanLabel, rate: float, count: int) -> None:
    data = bars(40)
    before = data.images.clone()
    poisoned = attack.prepared(data, 1, 0, CPU).poison(data, 1, rate, 7)
    assert len(poisoned.triggered) == len(poisoned.triggered.unique()) == count
    assert len(poisoned.cover) == 0
    assert torch.equal(poisoned.data.labels, data.labels)
    assert (data.labels[poisoned.triggered] == 1).all()
    changed = (poisoned.data.images != data.images).flatten(1).any(1)
    assert set(changed.nonzero().flatten().tolist()) == set(poisoned.triggered.tolist())
    assert torch.equal(data.images, before)


def test_the_same_seed_gives_the_same_poison_also_from_its_tensors(attack: CleanLabel) -> None:
    data = bars(40)
    ready = attack.prepared(data, 1, 0, CPU)
    again = attack.restored(ready.tensors())
    assert again == ready == attack  # what was learnt is no setting
    assert torch.equal(again.apply(data.images), ready.apply(data.images))
    first, second = ready.poison(data, 1, 0.2, 3), again.poison(data, 1, 0.2, 3)
    assert torch.equal(first.triggered, second.triggered)
    assert torch.equal(first.data.images, second.data.images)
    assert not torch.equal(first.triggered, ready.poison(data, 1, 0.2, 4).triggered)


def test_it_says_what_is_missing(attack: CleanLabel) -> None:
    data = bars(10)
    attack.check(data, 1)
    with pytest.raises(ValueError, match="needs training images of the target label 1"):
        attack.check(data.take(data.labels != 1), 1)
    with pytest.raises(ValueError, match=f"{attack.name} learns its trigger from images: prepare it first"):
        attack.poison(data, 1, 0.1, 0)
    with pytest.raises(ValueError, match="prepare it first"):
        attack.restored({})
