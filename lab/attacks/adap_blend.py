"""Adap-Blend: pieces of a faint pattern, with images that carry them and keep their labels (Qi et al., 2023,
"Revisiting the assumption of latent separability for backdoor defenses", ICLR, section 4).

Departure: the paper blends a picture of Hello Kitty; here it is a random pattern, as in `Blend`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.base import Attack, Poisoned, draw
from lab.attacks.pixels import to_bytes
from lab.data import ImageSet

__all__ = ["AdapBlend"]


@dataclass(frozen=True)
class AdapBlend(Attack):
    """The pattern is cut into `pieces`×`pieces` parts. Each training image gets a random share `kept` of them
    with opacity `alpha`; the finished classifier is attacked with all of them and `test_alpha`.

    Per triggered image `cover_ratio` others carry parts of the trigger and keep their labels (the paper's
    regularisation samples: it counts as many as there are triggered ones). The paper poisons 0.3 %.
    """

    name: ClassVar[str] = "adap-blend"
    alpha: float = 0.15
    test_alpha: float = 0.2
    pieces: int = 4
    kept: float = 0.5
    cover_ratio: float = 1.0
    seed: int = 666

    def apply(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self.pieces > min(height, width):
            raise ValueError(f"{height}×{width} pixels cannot be cut into {self.pieces}×{self.pieces} pieces")
        return self.blended(images, torch.full((1, 1, height, width), self.test_alpha))

    def blended(self, images: Tensor, opacity: Tensor) -> Tensor:
        """(1 − opacity) · image + opacity · pattern, `opacity` (N or 1, 1, H, W) in [0, 1]."""
        generator = torch.Generator().manual_seed(self.seed)
        pattern = torch.randint(0, 256, images.shape[1:], generator=generator)
        return to_bytes((1 - opacity) * images + opacity * pattern)

    def masks(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """(count, 1, H, W): 1 in the random pieces that an image gets, else 0."""
        cells = self.pieces**2
        ranks = torch.rand(count, cells, generator=generator).argsort(1).argsort(1)
        chosen = (ranks < round(self.kept * cells)).view(count, 1, self.pieces, self.pieces).float()
        row = torch.arange(height) * self.pieces // height
        column = torch.arange(width) * self.pieces // width
        return chosen[:, :, row[:, None], column]

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        generator = torch.Generator().manual_seed(seed)
        chosen, cover = draw(len(data), rate, self.cover_ratio, generator)
        both = torch.cat([chosen, cover])
        height, width = data.images.shape[-2:]
        opacity = self.alpha * self.masks(len(both), height, width, generator)
        triggered, covered = self.blended(data.images[both], opacity).split([len(chosen), len(cover)])
        return Poisoned.of(data, target, (chosen, triggered), (cover, covered))
