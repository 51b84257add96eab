import numpy as np
import pytest
import torch
from scipy import ndimage

from lab.attacks.batt import Batt, rotate


def random_images(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("degrees", [16.0, -40.0, 3.0])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 33)])
def test_rotation_against_scipy(degrees: float, height: int, width: int) -> None:
    images = random_images(height, width)
    expected = ndimage.rotate(
        images.numpy().astype(np.float64), degrees, axes=(3, 2), reshape=False, order=1, mode="grid-constant"
    )
    assert np.abs(rotate(images, degrees).numpy() - expected).max() <= 0.51


def test_a_quarter_turn_is_counterclockwise() -> None:
    images = random_images(8, 8)
    assert torch.equal(rotate(images, 90), images.rot90(1, (2, 3)))


def test_the_corners_turn_black_and_the_middle_stays() -> None:
    white = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    turned = Batt().apply(white)
    assert (turned[..., [0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    assert (turned[..., 8:24, 8:24] == 255).all()


def test_no_angle_no_change() -> None:
    images = random_images(9, 7)
    assert torch.equal(Batt(degrees=0.0).apply(images), images)
