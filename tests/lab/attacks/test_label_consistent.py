import pytest
import torch

from lab.attacks.label_consistent import LabelConsistent
from tests.lab.attacks.bars import CPU, bars, farthest


def test_the_trigger_by_hand() -> None:
    grey = torch.full((1, 1, 5, 6), 100, dtype=torch.uint8)
    assert LabelConsistent(size=2).apply(grey)[0, 0].tolist() == [
        [255, 0, 100, 100, 255, 0],
        [0, 255, 100, 100, 0, 255],
        [100, 100, 100, 100, 100, 100],
        [255, 0, 100, 100, 255, 0],
        [0, 255, 100, 100, 0, 255],
    ]


def test_the_poison_is_perturbed_within_its_bound_and_its_patches_are_faint() -> None:
    data = bars(40)
    attack = LabelConsistent(steps=3, size=3, amplitude=40)
    ready = attack.prepared(data, 1, 0, CPU)
    chosen = ready.poison(data, 1, 0.2, 0)
    clean, poisoned = data.images[chosen.triggered], chosen.data.images[chosen.triggered]
    assert farthest(poisoned[..., 3:9, :], clean[..., 3:9, :]) == 16
    corner = poisoned[..., :3, :3].int() - clean[..., :3, :3].int()
    assert (corner[..., 0, 0] >= 24).all()  # +40, ±16 of the perturbation; the images are dark there
    assert (corner <= 56).all()
    assert (corner[..., 0, 1] <= 16).all()


def test_patches_that_do_not_fit() -> None:
    data = bars(4)
    LabelConsistent(size=6).check(data, 0)
    with pytest.raises(ValueError, match="four 7-pixel patches do not fit into 12×12"):
        LabelConsistent(size=7).check(data, 0)
