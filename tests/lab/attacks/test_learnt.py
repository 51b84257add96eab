"""What is learnt survives the bundle's folder."""

from pathlib import Path

import pytest
import torch

from lab.attacks import ATTACKS
from lab.attacks.learnt import Learnt
from lab.record import prepared_attack
from lab.settings import TrainSettings
from tests.lab.attacks.bars import CPU, bars

QUICK = {"iad": {"mask_steps": 2, "steps": 2}, "label-consistent": {"steps": 1}}


@pytest.mark.parametrize("name", sorted(n for n, kind in ATTACKS.items() if issubclass(kind, Learnt)))
def test_a_run_that_was_killed_finds_its_trigger_again(name: str, tmp_path: Path) -> None:
    attack, data = ATTACKS[name](**QUICK.get(name, {"steps": 2})), bars(10)
    settings = TrainSettings(name="x", attack=name, target=1)
    ready = prepared_attack(attack, data, settings, tmp_path, CPU)
    again = prepared_attack(attack, data, settings, tmp_path, CPU)
    assert ready.tensors().keys() == again.tensors().keys()
    assert ready.tensors() is not again.tensors()
    assert torch.equal(again.apply(data.images), ready.apply(data.images))
    assert again.settings() == attack.settings()
    first, second = ready.poison(data, 1, 0.2, 0), again.poison(data, 1, 0.2, 0)
    assert torch.equal(first.data.images, second.data.images)
