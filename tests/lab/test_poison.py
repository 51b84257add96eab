import pytest
import torch

from lab.attacks.badnets import BadNets
from lab.data import ImageSet
from lab.poison import poison


@pytest.fixture
def data() -> ImageSet:
    images = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).repeat(1, 3, 6, 6)
    return ImageSet(images, torch.arange(40) % 4, ("a", "b", "c", "d"))


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.1, 4), (0.11, 4), (0.24, 10), (1.0, 40)])
def test_exactly_the_chosen_images_change(rate: float, count: int, data: ImageSet) -> None:
    images, labels = data.images.clone(), data.labels.clone()
    poisoned, chosen = poison(data, BadNets(), target=2, rate=rate, seed=5)
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
        return poison(data, BadNets(), 0, 0.25, seed)[1].tolist()

    assert chosen(1) == chosen(1)
    assert chosen(1) != chosen(2)
