"""Blend: a faint fixed pattern over the whole image (Chen et al., 2017, arXiv:1712.05526, section 3.2)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.base import Attack

__all__ = ["Blend"]


@dataclass(frozen=True)
class Blend(Attack):
    """(1 − alpha) · image + alpha · noise, the noise drawn once from `seed` (the paper's random pattern)."""

    name: ClassVar[str] = "blend"
    alpha: float = 0.2
    seed: int = 666

    def apply(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        pattern = torch.randint(0, 256, images.shape[1:], generator=generator)
        mixed = (1 - self.alpha) * images.float() + self.alpha * pattern.float()
        return mixed.round().clamp(0, 255).to(images.dtype)
