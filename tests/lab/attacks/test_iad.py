from dataclasses import replace

import pytest
import torch

from lab.attacks.iad import Iad
from tests.lab.attacks.bars import CPU, bars

SMALL = Iad(mask_steps=20, steps=5)


@pytest.fixture(scope="module")
def ready() -> Iad:
    return SMALL.prepared(bars(40), 1, 0, CPU)


def test_triggers_are_each_images_own_and_sparse(ready: Iad) -> None:
    images = torch.full((4, 3, 12, 12), 128, dtype=torch.uint8)
    sources = bars(4).images[:4]
    stamped = ready._stamped(images, sources)
    assert len(stamped.flatten(1).unique(dim=0)) == 4  # one image under four triggers
    changed = (stamped != images).any(1).float().mean((1, 2))
    assert (changed > 0).all()
    assert (changed < 0.5).all()
    assert torch.equal(ready.apply(sources), ready._stamped(sources, sources))
    assert ready.apply(sources[:0]).shape == (0, 3, 12, 12)


@pytest.mark.parametrize(
    ("rate", "ratio", "triggered", "covers"),
    [(0.1, 1.0, 12, 12), (0.1, 0.0, 12, 0), (0.05, 2.0, 6, 12), (0.8, 1.0, 96, 24), (0.0, 1.0, 0, 0)],
)
def test_poison_and_covers_by_count_and_label(
    ready: Iad, rate: float, ratio: float, triggered: int, covers: int
) -> None:
    data = bars(40)
    before = data.images.clone()
    poisoned = replace(ready, cover_ratio=ratio).poison(data, 1, rate, 0)
    assert (len(poisoned.triggered), len(poisoned.cover)) == (triggered, covers)
    assert not set(poisoned.triggered.tolist()) & set(poisoned.cover.tolist())
    assert (poisoned.data.labels[poisoned.triggered] == 1).all()
    assert torch.equal(poisoned.data.labels[poisoned.cover], data.labels[poisoned.cover])
    assert torch.equal(poisoned.data.images[poisoned.triggered], ready.apply(data.images[poisoned.triggered]))
    rest = torch.ones(len(data), dtype=torch.bool)
    rest[poisoned.triggered] = rest[poisoned.cover] = False
    assert torch.equal(poisoned.data.images[rest], data.images[rest])
    assert torch.equal(data.images, before)


def test_a_cover_carries_the_trigger_of_another_image(ready: Iad) -> None:
    data = bars(10)
    poisoned = ready.poison(data, 1, 0.1, 0)
    for i in poisoned.cover.tolist():
        under_each = ready._stamped(data.images[i].expand(30, -1, -1, -1), data.images).int()
        # A network's answer may differ by a rounding where the batch is another.
        same = (under_each - poisoned.data.images[i].int()).abs().flatten(1).amax(1) <= 1
        assert same.nonzero().flatten().tolist() != []
        assert not same[i]


def test_the_seed_and_the_tensors_give_it_again(ready: Iad) -> None:
    data = bars(40)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = ready.restored(SMALL.prepared(data, 1, 0, CPU).tensors())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.apply(data.images), ready.apply(data.images))
    first, second = ready.poison(data, 1, 0.1, 3), again.poison(data, 1, 0.1, 3)
    assert torch.equal(first.data.images, second.data.images)
    assert torch.equal(first.cover, second.cover)


def test_what_it_cannot_do(ready: Iad) -> None:
    with pytest.raises(ValueError, match="a trigger for 3 channels does not fit images of 1"):
        ready.apply(bars(4).images[:, :1])
    with pytest.raises(ValueError, match="iad learns its trigger from images: prepare it first"):
        SMALL.apply(bars(4).images)
