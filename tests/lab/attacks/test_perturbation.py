import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lab.attacks.perturbation import adversarial, perturbed, universal
from lab.attacks.surrogate import surrogate
from lab.evaluate import predict
from tests.lab.attacks.bars import CPU, bars, farthest


def test_a_perturbation_is_added_and_clipped() -> None:
    images = torch.tensor([[0, 100], [200, 255]], dtype=torch.uint8).view(1, 1, 2, 2)
    delta = torch.tensor([[-5, -5], [60, 7]], dtype=torch.int16).view(1, 2, 2)
    assert perturbed(images, delta).flatten().tolist() == [0, 95, 255, 255]
    with pytest.raises(ValueError, match=r"a trigger for \(1, 2, 2\) does not fit images \(1, 3, 3\)"):
        perturbed(torch.zeros(1, 1, 3, 3, dtype=torch.uint8), delta)


def test_against_a_linear_network_it_goes_the_whole_way_along_the_sign_of_the_weights() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1.0, -1, 2, 0], [0, 0, 0, 0]]))
    images = torch.tensor([100, 100, 3, 100], dtype=torch.uint8).view(1, 1, 2, 2)
    # Away from label 0: against its weights, and not below 0.
    assert adversarial(network, images, 0, 8, 4).flatten().tolist() == [92, 108, 0, 100]
    assert adversarial(network, images, 1, 8, 4).flatten().tolist() == [108, 92, 11, 100]


def test_an_adversarial_image_stays_within_the_bound_and_is_read_worse() -> None:
    data = bars(60)
    network = surrogate(data, 0, CPU)
    own = data.images[data.labels == 1]
    moved = adversarial(network, own, 1, 16, 5)
    assert moved.dtype == torch.uint8
    assert farthest(moved, own) == 16
    labels = torch.ones(len(own), dtype=torch.long)
    before, after = (F.cross_entropy(network(images.float() / 255), labels) for images in (own, moved))
    assert after > before + 0.2
    assert torch.equal(moved, adversarial(network, own, 1, 16, 5))
    assert len(adversarial(network, own[:0], 1, 16, 5)) == 0


def test_a_universal_perturbation_takes_every_image_to_the_target() -> None:
    data = bars(60)
    network = surrogate(data, 0, CPU)
    others = data.take(data.labels != 2)
    delta = universal(network, others, 2, 100, 30, 0)
    assert delta.shape == (3, 12, 12)
    assert delta.abs().max() == 100
    assert (predict(network, perturbed(others.images, delta)) == 2).float().mean() > 0.9
    assert torch.equal(delta, universal(network, others, 2, 100, 30, 0))
