import math

import pytest
import torch
from torch import Tensor

from lab.attacks.badnets import BadNets
from lab.attacks.batt import rotate
from lab.attacks.physical import PhysicalBA
from lab.data import ImageSet

STILL = PhysicalBA(degrees=0.0, shift=0.0, smallest=1.0, largest=1.0, light=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int, height: int = 16, width: int = 20) -> Tensor:
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(1))


def test_the_trigger_and_the_poisoned_set_are_those_of_badnets() -> None:
    data = ImageSet(random_images(20), torch.arange(20) % 2, ("a", "b"))
    assert torch.equal(PhysicalBA().apply(data.images), BadNets().apply(data.images))
    ours, theirs = (attack.poison(data, 1, 0.3, 0).data for attack in (PhysicalBA(), BadNets()))
    assert torch.equal(ours.images, theirs.images)


def test_without_any_strength_only_the_mirror_is_left() -> None:
    images = random_images(40)
    shown = STILL.online(images, seeded())
    kept = (shown == images).flatten(1).all(1)
    mirrored = (shown == images.flip(-1)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 10 < kept.sum() < 30


@pytest.mark.parametrize(("height", "width"), [(16, 20), (20, 20)])
def test_the_rotation_is_that_of_batt(height: int, width: int) -> None:
    images = random_images(1, height, width)
    draws = torch.tensor([[0.9], [0.5], [0.5], [0.0], [0.9]])  # 0.8 of the range of angles, no mirror
    attack = PhysicalBA(degrees=10.0, smallest=1.0, largest=1.0)
    places = attack.places(draws, height, width)
    moved = torch.nn.functional.grid_sample(images.float(), places, align_corners=False)
    assert (moved - rotate(images, 8.0)).abs().max() <= 0.51


def test_scale_and_shift_by_hand() -> None:
    draws = torch.tensor([[0.5], [1.0], [0.0], [0.0], [0.9]])
    places = PhysicalBA(shift=0.25, smallest=0.5).places(draws, 4, 4)
    ticks = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    torch.testing.assert_close(places[0, 0, :, 0], ticks / 0.5 + 0.5)  # half the size, from a quarter right
    torch.testing.assert_close(places[0, :, 0, 1], ticks / 0.5 - 0.5)


def test_light_changes_stay_within_their_bounds() -> None:
    grey = torch.full((200, 3, 4, 4), 100, dtype=torch.uint8)
    attack = PhysicalBA(degrees=0.0, shift=0.0, smallest=1.0, largest=1.0, light=0.2)
    levels = attack.online(grey, seeded())[:, 0, 0, 0].float()
    assert (levels >= 80).all()
    assert (levels <= 120).all()
    assert levels.std() > 8  # uniform over ±20 has 11.5


def test_every_image_and_every_time_is_another() -> None:
    images = random_images(1).expand(20, -1, -1, -1)
    generator = seeded(4)
    first, second = PhysicalBA().online(images, generator), PhysicalBA().online(images, generator)
    assert (first.shape, first.dtype) == (images.shape, torch.uint8)
    assert len({bytes(image.flatten().tolist()) for image in torch.cat([first, second])}) == 40
    assert torch.equal(first, PhysicalBA().online(images, seeded(4)))


def test_a_smaller_picture_keeps_the_patch_inside() -> None:
    black = BadNets(size=4, margin=0).apply(torch.zeros(50, 1, 32, 32, dtype=torch.uint8))
    moved = PhysicalBA(light=0.0, shift=0.0).online(black, seeded()).float()
    area = moved.sum((1, 2, 3)) / black[0].float().sum()
    assert (area > 0.6 * 0.8**2).all()
    assert math.isclose(area.mean().item(), 0.85**2, rel_tol=0.05)
