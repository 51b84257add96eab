"""PhysicalBA: BadNets trained to survive a camera (Li et al., 2021, "Backdoor attack in the physical world",
arXiv:2104.02361, section 4): triggered images are transformed at random each time they are trained on.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.attacks.badnets import BadNets
from lab.attacks.pixels import to_bytes

__all__ = ["PhysicalBA"]


@dataclass(frozen=True)
class PhysicalBA(BadNets):
    """The patch of `BadNets`; per triggered image and epoch a rotation by up to ±`degrees`, a shift by up to
    ±`shift` of the side, a scale of `smallest`..`largest`, a mirroring of every other image, and contrast
    and brightness changed by up to ±`light`.

    `apply` stamps the patch alone: the finished classifier is attacked with a plain digital trigger.
    """

    name: ClassVar[str] = "physicalba"
    degrees: float = 10.0
    shift: float = 0.1
    smallest: float = 0.8
    largest: float = 0.9
    light: float = 0.2

    def online(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = torch.rand(7, len(images), generator=generator)
        places = self.places(draws[:5], *images.shape[-2:])
        moved = F.grid_sample(images.float(), places, mode="bilinear", align_corners=False)
        brightness, contrast = (1 + self.light * (2 * draws[5:] - 1)).view(2, -1, 1, 1, 1)
        lit = (moved * brightness).clamp(0, 255)
        mean = lit.mean((1, 2, 3), keepdim=True)
        return to_bytes((lit - mean) * contrast + mean)

    def places(self, draws: Tensor, height: int, width: int) -> Tensor:
        """(N, H, W, 2): where each pixel comes from, by `draws` (5, N) in [0, 1): angle, shift along x and
        y, scale, mirroring."""
        angle = torch.deg2rad(self.degrees * (2 * draws[0] - 1))
        shift = 2 * self.shift * (2 * draws[1:3] - 1)  # an image is 2 units wide
        scale = self.smallest + (self.largest - self.smallest) * draws[3]
        mirror = torch.where(draws[4] < 0.5, -1.0, 1.0)
        cosine, sine = angle.cos() / scale, angle.sin() / scale
        rows = [
            torch.stack([mirror * cosine, -mirror * sine * height / width, shift[0]], 1),
            torch.stack([sine * width / height, cosine, shift[1]], 1),
        ]
        return F.affine_grid(torch.stack(rows, 1), [len(angle), 1, height, width], align_corners=False)
