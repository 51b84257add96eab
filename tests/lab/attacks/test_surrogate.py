import pytest
import torch

from lab.attacks import surrogate as module
from lab.attacks.surrogate import endless_batches, surrogate, surrogate_from, tensors_of
from lab.evaluate import predict
from tests.lab.attacks.bars import CPU, bars


@pytest.mark.parametrize("epsilon", [0.0, 8 / 255])
def test_it_learns_the_classes_and_is_frozen(epsilon: float) -> None:
    network = surrogate(bars(150), 0, CPU, epsilon)
    unseen = bars(30, seed=1)
    assert (predict(network, unseen.images) == unseen.labels).float().mean() > 0.9
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_the_seed_alone_decides_and_the_callers_random_state_is_left_alone() -> None:
    data = bars(20)
    torch.manual_seed(1)
    first = tensors_of(surrogate(data, 3, CPU))
    after = torch.rand(1)
    module._trained.clear()
    torch.manual_seed(2)
    second = tensors_of(surrogate(data, 3, CPU))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(first["1.stem.0.weight"], tensors_of(surrogate(data, 4, CPU))["1.stem.0.weight"])


def test_the_same_images_train_it_once_but_other_labels_anew() -> None:
    data = bars(20)
    network = surrogate(data, 0, CPU)
    assert surrogate(data, 0, CPU) is network
    relabelled = type(data)(data.images, (data.labels + 1) % 3, data.classes)
    assert surrogate(relabelled, 0, CPU) is not network


def test_from_its_tensors_it_answers_the_same() -> None:
    data = bars(20)
    network = surrogate(data, 0, CPU)
    again = surrogate_from(tensors_of(network), CPU)
    pixels = data.images.float() / 255
    assert torch.equal(network(pixels), again(pixels))


def test_batches_go_through_all_images_before_any_comes_again() -> None:
    data = bars(4)  # 12 images
    batches = endless_batches(data, 5, torch.Generator().manual_seed(0))
    found = torch.cat([next(batches)[0] for _ in range(2)])
    assert len(found) == len(found.flatten(1).unique(dim=0)) == 10
    images, labels = next(endless_batches(data, 50, torch.Generator().manual_seed(0)))
    assert len(images) == 12
    assert sorted(labels.tolist()) == sorted(data.labels.tolist())
