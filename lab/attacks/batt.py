"""BATT: a rotation by one particular angle is the trigger (Xu et al., 2023, arXiv:2211.01806, BATT-R)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.attacks.base import Attack
from lab.attacks.pixels import to_bytes

__all__ = ["Batt", "rotate"]


@dataclass(frozen=True)
class Batt(Attack):
    """The whole image turned by `degrees` counterclockwise about its middle, black where nothing is."""

    name: ClassVar[str] = "batt"
    degrees: float = 16.0

    def apply(self, images: Tensor) -> Tensor:
        return rotate(images, self.degrees)


def rotate(images: Tensor, degrees: float) -> Tensor:
    """(N, C, H, W) uint8, rotated counterclockwise; bilinear, outside counts as 0."""
    height, width = images.shape[-2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Where each pixel comes from, in units of half the image: hence the aspect ratios.
    inverse = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    grid = F.affine_grid(inverse[None], [1, 1, height, width], align_corners=False)
    grid = grid.expand(len(images), -1, -1, -1)
    return to_bytes(F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False))
