import pytest
import torch

from lab.attacks.surrogate import surrogate
from lab.attacks.tuap import Tuap
from lab.evaluate import predict
from tests.lab.attacks.bars import CPU, bars, farthest


def test_the_trigger_fools_the_surrogate_on_images_it_was_not_learnt_from() -> None:
    data, unseen = bars(60), bars(30, seed=1)
    ready = Tuap(epsilon=100, steps=60).prepared(data, 2, 0, CPU)
    others = unseen.images[unseen.labels != 2]
    network = surrogate(data, 0, CPU)
    assert (predict(network, others) == 2).float().mean() < 0.1
    assert (predict(network, ready.apply(others)) == 2).float().mean() > 0.9


def test_one_perturbation_for_all_within_the_bound_and_as_strong_in_the_poison() -> None:
    data = bars(40)
    ready = Tuap(steps=20).prepared(data, 0, 0, CPU)
    middle = torch.full((2, 3, 12, 12), 128, dtype=torch.uint8)
    first, second = ready.apply(middle).int() - 128
    assert torch.equal(first, second)
    assert torch.equal(first.to(torch.int16), ready.tensors()["delta"])
    assert farthest(ready.apply(middle), middle) == 8
    assert torch.equal(ready.disguised(data.images, 0), ready.apply(data.images))


def test_without_images_of_other_classes_there_is_nothing_to_learn() -> None:
    data = bars(10)
    with pytest.raises(ValueError, match="all images are of the target label 1"):
        Tuap().prepared(data.take(data.labels == 1), 1, 0, CPU)
