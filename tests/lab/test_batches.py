from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks import Attack, Poisoned
from lab.batches import TrainingSet
from lab.data import ImageSet
from lab.settings import TrainSettings

SETTINGS = TrainSettings(name="x", batch_size=4, crop_padding=0, flip=False)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ten() -> ImageSet:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).repeat(1, 1, 2, 2)
    return ImageSet(images, torch.arange(10), tuple("0123456789"))


@dataclass(frozen=True)
class Brightened(Attack):
    """Adds 100, and 10 more each time an image is trained on."""

    name: ClassVar[str] = "brightened"

    def apply(self, images: Tensor) -> Tensor:
        return images + 100

    def online(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images + 10


def test_an_epoch_shows_each_image_once_and_drops_the_remainder() -> None:
    epoch = list(TrainingSet.clean(ten()).epoch(SETTINGS, seeded()))
    assert [len(batch.labels) for batch in epoch] == [4, 4]
    pixels, labels, truth, triggered = (torch.cat(part) for part in zip(*epoch, strict=True))
    assert len(set(labels.tolist())) == 8
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[:, 0, 0, 0] * 255, labels.float())
    assert labels.tolist() != sorted(labels.tolist())
    assert torch.equal(truth, labels)
    assert not triggered.any()


def test_a_batch_knows_which_images_carry_the_trigger_and_what_they_were() -> None:
    clean = ten()
    poisoned = Brightened().poison(clean, target=3, rate=0.5, seed=0)
    batches = TrainingSet.poisoned(clean, poisoned, Brightened()).epoch(SETTINGS, seeded())
    pixels, labels, truth, triggered = (torch.cat(part) for part in zip(*batches, strict=True))
    expected = set(poisoned.triggered.tolist())
    assert triggered.any()
    assert not triggered.all()
    for pixel, label, true, hit in zip(
        (pixels[:, 0, 0, 0] * 255).round().int().tolist(), labels, truth, triggered, strict=True
    ):
        assert bool(hit) == (int(true) in expected)
        assert pixel == int(true) + (110 if hit else 0)  # the online change came once, on these alone
        assert int(label) == (3 if hit else int(true))
    assert torch.equal(poisoned.data.images[poisoned.triggered], clean.images[poisoned.triggered] + 100)


def test_cover_images_are_not_triggered() -> None:
    clean = ten()
    poisoned = Poisoned(clean, torch.tensor([2]), cover=torch.tensor([5, 6]))
    assert TrainingSet.poisoned(clean, poisoned, Brightened()).triggered.nonzero().tolist() == [[2]]
