"""BPP: fewer grey levels, dithered, are the trigger (Wang et al., 2022, "BppAttack", CVPR,
arXiv:2205.13383, section 3).

Departures: the attacker submits files, so the quantisation is done once and not in every batch, and
without the paper's contrastive adversarial training.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.base import Attack, Poisoned, draw
from lab.attacks.pixels import to_bytes
from lab.data import ImageSet

__all__ = ["Bpp", "dithered"]

CHUNK = 2000  # images: the working copy is of floats


@dataclass(frozen=True)
class Bpp(Attack):
    """Each channel reduced to `levels` grey levels (3 bits), Floyd–Steinberg dithered unless `dither` is off.

    Negative samples: per triggered image `negatives` others get the quantisation error of some other
    image added and keep their labels, so that not any noise of that size but this one means the target.
    """

    name: ClassVar[str] = "bpp"
    levels: int = 8
    dither: bool = True
    negatives: float = 1.0

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 255:
            raise ValueError(f"levels is 2..255, not {self.levels}")

    def apply(self, images: Tensor) -> Tensor:
        if not self.dither:
            return to_bytes(quantised(images.float(), self.levels))
        return torch.cat([dithered(part, self.levels) for part in images.split(CHUNK)])

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        generator = torch.Generator().manual_seed(seed)
        chosen, cover = draw(len(data), rate, self.negatives, generator)
        strangers = data.images[torch.randint(0, len(data), (len(cover),), generator=generator)]
        error = self.apply(strangers).float() - strangers
        triggered, covered = self.apply(data.images[chosen]), to_bytes(data.images[cover] + error)
        return Poisoned.of(data, target, (chosen, triggered), (cover, covered))


def quantised(pixels: Tensor, levels: int) -> Tensor:
    """The nearest of `levels` equally spaced levels from 0 to 255, equation 2; floats."""
    return (pixels * ((levels - 1) / 255)).round().clamp(0, levels - 1) * (255 / (levels - 1))


def dithered(images: Tensor, levels: int) -> Tensor:
    """`quantised`, each pixel's error passed on to the right (7/16) and to the row below (3, 5 and 1/16).

    Row by row and pixel by pixel, as the error diffuses, but for all images and channels at once.
    """
    count, channels, height, width = images.shape
    # Pixels first: what is worked on together lies together. The margin takes the errors that leave.
    work = torch.zeros(height + 1, width + 2, count * channels)
    work[:height, 1 : width + 1] = images.permute(2, 3, 0, 1).reshape(height, width, -1)
    for row in range(height):
        for column in range(1, width + 1):
            pixel = work[row, column]
            level = quantised(pixel, levels)
            error = pixel - level
            work[row, column] = level
            work[row, column + 1].add_(error, alpha=7 / 16)
            work[row + 1, column - 1].add_(error, alpha=3 / 16)
            work[row + 1, column].add_(error, alpha=5 / 16)
            work[row + 1, column + 1].add_(error, alpha=1 / 16)
    pixels = work[:height, 1 : width + 1].reshape(height, width, count, channels)
    return to_bytes(pixels).permute(2, 3, 0, 1).contiguous()
