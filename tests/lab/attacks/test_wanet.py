import math

import pytest
import torch
from torch import Tensor

from lab.attacks.wanet import WaNet, warp
from lab.data import ImageSet


def random_images(count: int, height: int = 7, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 2, height, width), dtype=torch.uint8, generator=generator)


def slowly_warped(image: Tensor, displacement: Tensor) -> Tensor:
    """The bilinear mean of the four neighbours of each source, pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros(channels, height, width)
    for row in range(height):
        for column in range(width):
            right, down = displacement[row, column].tolist()
            # A field of 1 is 1/side of an image that is 2 wide and has side − 1 gaps.
            x = min(max(column + right / width * (width - 1) / 2, 0), width - 1)
            y = min(max(row + down / height * (height - 1) / 2, 0), height - 1)
            left, top = min(math.floor(x), width - 2), min(math.floor(y), height - 2)
            for r, c, share in [
                (top, left, (1 - y + top) * (1 - x + left)),
                (top, left + 1, (1 - y + top) * (x - left)),
                (top + 1, left, (y - top) * (1 - x + left)),
                (top + 1, left + 1, (y - top) * (x - left)),
            ]:
                result[:, row, column] += share * image[:, r, c]
    return result


def test_warp_against_a_loop_over_pixels() -> None:
    images = random_images(3)
    fields = torch.randn(3, 7, 6, 2, generator=torch.Generator().manual_seed(2)) * 2
    warped = warp(images, fields)
    assert warped.dtype == torch.uint8
    for image, field, result in zip(images, fields, warped, strict=True):
        assert (slowly_warped(image, field) - result).abs().max() <= 0.501


def test_no_displacement_no_change() -> None:
    images = random_images(2)
    assert torch.equal(warp(images, torch.zeros(1, 7, 6, 2)), images)


def test_the_field_has_the_strength_asked_for_at_its_control_points() -> None:
    field = WaNet(grid=4, strength=0.5).field(4, 4)  # as many pixels as control points
    torch.testing.assert_close(field.abs().mean(), torch.tensor(0.5))
    assert field.shape == (4, 4, 2)
    assert torch.equal(WaNet(strength=1.0).field(9, 8), 2 * WaNet(strength=0.5).field(9, 8))
    assert not torch.equal(WaNet(seed=1).field(9, 8), WaNet().field(9, 8))


@pytest.mark.parametrize(("ratio", "covers"), [(2.0, 8), (0.0, 0), (100.0, 36)])
def test_noise_mode(ratio: float, covers: int) -> None:
    data = ImageSet(random_images(40), torch.arange(40) % 4, tuple("abcd"))
    attack = WaNet(strength=4.0, cross_ratio=ratio)
    poisoned = attack.poison(data, target=3, rate=0.1, seed=5)
    assert (len(poisoned.triggered), len(poisoned.cover)) == (4, covers)
    hit = torch.zeros(40, dtype=torch.bool)
    hit[poisoned.triggered] = True
    assert not hit[poisoned.cover].any()
    assert torch.equal(poisoned.data.labels, torch.where(hit, 3, data.labels))
    assert torch.equal(poisoned.data.images[hit], attack.apply(data.images[hit]))
    covered = poisoned.data.images[poisoned.cover]
    assert (covered != data.images[poisoned.cover]).flatten(1).any(1).all()
    assert (covered != attack.apply(data.images[poisoned.cover])).flatten(1).any(1).all()
    hit[poisoned.cover] = True
    assert torch.equal(poisoned.data.images[~hit], data.images[~hit])
    again = attack.poison(data, target=3, rate=0.1, seed=5)
    assert torch.equal(again.data.images, poisoned.data.images)
