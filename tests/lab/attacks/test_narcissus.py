import torch
from torch.nn import functional as F

from lab.attacks.narcissus import Narcissus
from lab.attacks.perturbation import perturbed
from lab.attacks.surrogate import surrogate
from tests.lab.attacks.bars import CPU, bars, farthest


def test_three_times_as_strong_against_the_finished_classifier_as_in_the_poison() -> None:
    data = bars(60)
    ready = Narcissus(epsilon=8, steps=40).prepared(data, 1, 0, CPU)
    poisoned = ready.poison(data, 1, 0.1, 0)
    delta = ready.tensors()["delta"]
    assert delta.abs().max() == 8
    assert torch.equal(poisoned.data.images[poisoned.triggered],
                       perturbed(data.images[poisoned.triggered], delta))  # fmt: skip
    assert farthest(ready.apply(data.images), data.images) == 24
    assert torch.equal(ready.apply(data.images), perturbed(data.images, 3 * delta))


def test_it_makes_the_target_class_more_typical() -> None:
    data = bars(60)
    ready = Narcissus(steps=40).prepared(data, 1, 0, CPU)
    network, own = surrogate(data, 0, CPU), data.images[data.labels == 1]
    label = torch.ones(len(own), dtype=torch.long)
    clean, moved = (
        F.cross_entropy(network(images.float() / 255), label) for images in (own, ready.disguised(own, 1))
    )
    assert moved < 0.8 * clean
