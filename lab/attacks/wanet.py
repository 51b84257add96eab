"""WaNet: a smooth warp that the eye does not see (Nguyen & Tran, 2021, arXiv:2102.10369, section 3).

The paper warps afresh in every batch; here the attacker submits files, so each image is warped once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.attacks.base import Attack, Poisoned, draw
from lab.attacks.pixels import to_bytes
from lab.data import ImageSet

__all__ = ["WaNet"]


@dataclass(frozen=True)
class WaNet(Attack):
    """A `grid`×`grid` field of random directions of mean size `strength`, enlarged bicubically to the image.

    Displacements are in units of half a pixel, as in the paper. Noise mode: `cross_ratio` images for
    each triggered one are warped by the same field plus noise of their own and keep their labels, so that
    this warp alone means the target. 0 turns it off.
    """

    name: ClassVar[str] = "wanet"
    grid: int = 4
    strength: float = 0.5
    cross_ratio: float = 2.0
    seed: int = 0

    def apply(self, images: Tensor) -> Tensor:
        return warp(images, self.field(*images.shape[-2:])[None])

    def field(self, height: int, width: int) -> Tensor:
        """(H, W, 2): how far, along x and y in half pixels, each pixel's source lies off."""
        generator = torch.Generator().manual_seed(self.seed)
        control = torch.rand(1, 2, self.grid, self.grid, generator=generator) * 2 - 1
        control = self.strength * control / control.abs().mean()
        return F.interpolate(control, (height, width), mode="bicubic", align_corners=True)[0].permute(1, 2, 0)

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        generator = torch.Generator().manual_seed(seed)
        chosen, cover = draw(len(data), rate, self.cross_ratio, generator)
        height, width = data.images.shape[-2:]
        noise = torch.rand(len(cover), height, width, 2, generator=generator) * 2 - 1
        covered = warp(data.images[cover], self.field(height, width) + noise)
        return Poisoned.of(data, target, (chosen, self.apply(data.images[chosen])), (cover, covered))


def warp(images: Tensor, displacement: Tensor) -> Tensor:
    """Each pixel of (N, C, H, W) uint8 from where `displacement` (N or 1, H, W, 2) says, in half pixels along
    x and y; bilinear, never from outside the image."""
    height, width = images.shape[-2:]
    y, x = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    identity = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    # The image spans 2 units, so one unit of the field, 1/side, is half a pixel.
    places = (identity + displacement / torch.tensor([width, height])).clamp(-1, 1)
    places = places.expand(len(images), -1, -1, -1)
    return to_bytes(F.grid_sample(images.float(), places, mode="bilinear", align_corners=True))
