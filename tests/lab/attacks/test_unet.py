import pytest
import torch

from lab.attacks.unet import UNet


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 5)])
def test_an_image_of_any_size_comes_back_in_its_size(size: tuple[int, int]) -> None:
    assert UNet(3, 2, width=4)(torch.rand(2, 3, *size)).shape == (2, 2, *size)
