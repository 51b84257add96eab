import pytest
import torch
from torch import Tensor

from lab.attacks.adap_blend import AdapBlend
from lab.attacks.blend import Blend
from lab.data import ImageSet


def random_images(count: int, height: int = 12, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_the_finished_classifier_is_attacked_with_the_whole_pattern() -> None:
    images = random_images(3)
    assert torch.equal(AdapBlend(test_alpha=0.3).apply(images), Blend(alpha=0.3).apply(images))


def test_each_image_gets_its_own_half_of_the_pieces() -> None:
    masks = AdapBlend().masks(50, 12, 16, torch.Generator().manual_seed(0))
    assert masks.shape == (50, 1, 12, 16)
    blocks = masks.view(50, 4, 3, 4, 4)  # 4×4 pieces of 3×4 pixels
    assert (blocks.amax((2, 4)) == blocks.amin((2, 4))).all()  # a piece is there as a whole or not at all
    assert (blocks[:, :, 0, :, 0].sum((1, 2)) == 8).all()
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 40
    assert (blocks[:, :, 0, :, 0].mean(0) - 0.5).abs().max() < 0.3  # and every piece has its turn


def test_sides_that_do_not_divide() -> None:
    masks = AdapBlend(pieces=3, kept=1 / 9).masks(200, 7, 8, torch.Generator().manual_seed(0))
    areas = set(masks.sum((1, 2, 3)).tolist())
    assert areas <= {r * c for r in (2, 3) for c in (2, 3)}
    assert torch.equal(masks.amax(0), torch.ones(1, 7, 8))


def test_training_images_carry_pieces_and_the_covers_keep_their_labels() -> None:
    data = ImageSet(random_images(60), torch.arange(60) % 6, tuple("abcdef"))
    attack = AdapBlend(cover_ratio=2.0)
    poisoned = attack.poison(data, target=3, rate=0.1, seed=4)
    assert (len(poisoned.triggered), len(poisoned.cover)) == (6, 12)
    touched = torch.cat([poisoned.triggered, poisoned.cover])
    assert len(touched.unique()) == 18
    whole = attack.blended(data.images[touched], torch.full((1, 1, 12, 16), 0.15))
    got, before = poisoned.data.images[touched], data.images[touched]
    assert ((got == before) | (got == whole)).all()
    changed = (got != before).any(1).flatten(1).float().mean(1)
    assert ((changed > 0.4) & (changed <= 0.5)).all()
    rest = torch.ones(60, dtype=torch.bool)
    rest[touched] = False
    assert torch.equal(poisoned.data.images[rest], data.images[rest])
    rest[poisoned.cover] = True
    assert torch.equal(poisoned.data.labels[rest], data.labels[rest])
    assert (poisoned.data.labels[poisoned.triggered] == 3).all()
    again = attack.poison(data, target=3, rate=0.1, seed=4)
    assert torch.equal(again.data.images, poisoned.data.images)


def test_more_pieces_than_pixels() -> None:
    with pytest.raises(ValueError, match="12×16 pixels cannot be cut into 13×13 pieces"):
        AdapBlend(pieces=13).apply(random_images(1))
