import pytest
import torch

from lab.attacks.badnets import BadNets
from lab.attacks.tact import TaCT
from lab.data import ImageSet


def data(count: int = 200, classes: int = 10) -> ImageSet:
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).repeat(1, 3, 6, 6)
    return ImageSet(images, torch.arange(count) % classes, tuple(map(str, range(classes))))


@pytest.mark.parametrize(("rate", "triggered"), [(0.02, 4), (0.05, 10), (0.5, 10)])  # at most half of 20
@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0, 100.0])
def test_source_images_are_relabelled_and_cover_images_are_not(
    rate: float, triggered: int, ratio: float
) -> None:
    clean = data()
    poisoned = TaCT(cover_ratio=ratio).poison(clean, target=0, rate=rate, seed=3)
    assert len(poisoned.triggered) == triggered
    assert (clean.labels[poisoned.triggered] == 1).all()
    assert (poisoned.data.labels[poisoned.triggered] == 0).all()
    assert len(poisoned.cover) == min(40, round(ratio * triggered))
    assert torch.isin(clean.labels[poisoned.cover], torch.tensor([5, 7])).all()
    touched = torch.cat([poisoned.triggered, poisoned.cover])
    assert torch.equal(poisoned.data.images[touched], BadNets().apply(clean.images[touched]))
    rest = torch.ones(200, dtype=torch.bool)
    rest[touched] = False
    assert torch.equal(poisoned.data.images[rest], clean.images[rest])
    rest[poisoned.cover] = True
    assert torch.equal(poisoned.data.labels[rest], clean.labels[rest])


def test_only_the_source_class_is_attacked() -> None:
    assert TaCT(source=2).victims(torch.tensor([0, 1, 2, 3, 2]), 0).nonzero().flatten().tolist() == [2, 4]


@pytest.mark.parametrize(
    ("attack", "target", "classes", "sentence"),
    [
        (TaCT(), 0, 3, r"covers \(5, 7\) must be among 0..2"),
        (TaCT(source=-1), 0, 10, "source -1"),
        (TaCT(), 1, 10, "the source class 1 is the target label"),
        (TaCT(), 5, 10, r"covers \(5, 7\) must not hold the target 5"),
        (TaCT(covers=(1,)), 0, 10, "must not hold"),
        (TaCT(size=7), 0, 10, "7-pixel patch does not fit"),
    ],
)
def test_settings_that_cannot_work(attack: TaCT, target: int, classes: int, sentence: str) -> None:
    TaCT().check(data(), 0)
    with pytest.raises(ValueError, match=sentence):
        attack.check(data(classes=classes), target)


def test_a_source_class_without_images() -> None:
    clean = data()
    with pytest.raises(ValueError, match="no training image is of the source class 1"):
        TaCT().check(clean.take(clean.labels != 1), 0)
