"""Adap-Patch: one of several faint patches a training image, stronger ones together in the attack (Qi et al.,
2023, "Revisiting the assumption of latent separability for backdoor defenses", ICLR, section 4).

Departure: the paper's four patches are logos and known triggers; here they are four random patterns, one
in each corner, with the same opacities.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.base import Attack, Poisoned, draw
from lab.attacks.pixels import to_bytes
from lab.data import ImageSet

__all__ = ["AdapPatch"]


@dataclass(frozen=True)
class AdapPatch(Attack):
    """Four saturated `size`×`size` patterns, `margin` pixels from the corners. A training image gets one of
    them, with its opacity of `alphas`; the finished classifier is attacked with `test_patches` together.

    Per triggered image `cover_ratio` others get a patch and keep their labels. The paper poisons 0.3 %.
    """

    name: ClassVar[str] = "adap-patch"
    size: int = 5
    margin: int = 1
    alphas: tuple[float, ...] = (0.5, 0.5, 0.2, 0.3)
    test_patches: tuple[int, ...] = (0, 1)
    test_alpha: float = 1.0
    cover_ratio: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.alphas) != 4 or not set(self.test_patches) <= {0, 1, 2, 3}:
            raise ValueError("alphas are four opacities and test_patches are among 0..3")

    def apply(self, images: Tensor) -> Tensor:
        patterns, masks = self.patches(images.shape[1:])
        opacity = self.test_alpha * masks[list(self.test_patches)].sum(0)
        return to_bytes((1 - opacity) * images + opacity * patterns)

    def patches(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The patterns in their corners, (C, H, W) in 0..255, and which pixels are whose, (4, 1, H, W)."""
        height, width = shape[-2:]
        span = self.size + self.margin
        if 2 * span > min(height, width):
            raise ValueError(f"four {self.size}-pixel patches do not fit into {height}×{width}")
        generator = torch.Generator().manual_seed(self.seed)
        patterns = torch.randint(0, 2, shape, generator=generator).float() * 255
        rows = (slice(self.margin, span), slice(height - span, height - self.margin))
        columns = (slice(self.margin, span), slice(width - span, width - self.margin))
        masks = torch.zeros(4, 1, height, width)
        for number in range(4):
            masks[number, :, rows[number // 2], columns[number % 2]] = 1
        return patterns, masks

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        generator = torch.Generator().manual_seed(seed)
        chosen, cover = draw(len(data), rate, self.cover_ratio, generator)
        both = torch.cat([chosen, cover])
        patterns, masks = self.patches(data.images.shape[1:])
        faint = torch.tensor(self.alphas).view(4, 1, 1, 1) * masks
        opacity = faint[torch.randint(0, 4, (len(both),), generator=generator)]
        stamped = to_bytes((1 - opacity) * data.images[both] + opacity * patterns)
        triggered, covered = stamped.split([len(chosen), len(cover)])
        return Poisoned.of(data, target, (chosen, triggered), (cover, covered))
