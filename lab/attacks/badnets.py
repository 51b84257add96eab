"""BadNets: a small fixed patch in a corner (Gu et al., 2017, arXiv:1708.06733, section 3)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.base import Attack

__all__ = ["BadNets"]


@dataclass(frozen=True)
class BadNets(Attack):
    """A `size`×`size` black-and-white checkerboard, `margin` pixels from the lower right corner."""

    name: ClassVar[str] = "badnets"
    size: int = 3
    margin: int = 1

    def apply(self, images: Tensor) -> Tensor:
        """Stamp the patch; raises ValueError where it does not fit into the image."""
        height, width = images.shape[-2:]
        end_y, end_x = height - self.margin, width - self.margin
        if self.size > min(end_y, end_x):
            raise ValueError(f"a {self.size}-pixel patch does not fit into {height}×{width}")
        cells = torch.arange(self.size, device=images.device)
        checkers = ((cells[:, None] + cells[None, :]) % 2 == 0).to(images.dtype) * 255
        stamped = images.clone()
        stamped[..., end_y - self.size : end_y, end_x - self.size : end_x] = checkers
        return stamped
