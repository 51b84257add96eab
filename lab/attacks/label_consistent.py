"""Label-Consistent (Turner, Tsipras & Madry, 2019, arXiv:1912.02771): clean labels, adversarial images."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from lab.attacks.clean_label import CleanLabel
from lab.attacks.perturbation import adversarial
from lab.attacks.surrogate import surrogate, surrogate_from, tensors_of
from lab.data import ImageSet

__all__ = ["LabelConsistent"]


@dataclass(frozen=True)
class LabelConsistent(CleanLabel):
    """Images of the target class that are hard to recognise, with a patch in each corner that is not.

    The poisoned images are perturbed (maximum norm, `epsilon` levels) against a robust surrogate, so that
    what they show tells the class no more, and a `size`×`size` checkerboard of `amplitude` levels up or
    down is added in all four corners. Against the finished classifier the patch is black and white.
    Departure: the surrogate (lab.attacks.surrogate) is trained with one-step adversarial examples for
    minutes, not with full PGD for a day, and the perturbation takes `steps` steps.
    """

    name: ClassVar[str] = "label-consistent"
    epsilon: int = 16
    steps: int = 10
    size: int = 3
    amplitude: int = 64
    robust_epsilon: int = 8

    def check(self, data: ImageSet, target: int) -> None:
        super().check(data, target)
        self.apply(data.images[:1])

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        return self.restored(tensors_of(surrogate(data, seed, device, self.robust_epsilon / 255)))

    def apply(self, images: Tensor) -> Tensor:
        return self._patched(images, 255)

    def disguised(self, images: Tensor, target: int) -> Tensor:
        network = surrogate_from(self.required(), images.device)
        return self._patched(adversarial(network, images, target, self.epsilon, self.steps), self.amplitude)

    def _patched(self, images: Tensor, amplitude: int) -> Tensor:
        """The checkerboard, + `amplitude` where it is white and − where it is black, clipped."""
        height, width = images.shape[-2:]
        if 2 * self.size > min(height, width):
            raise ValueError(f"four {self.size}-pixel patches do not fit into {height}×{width}")
        cells = torch.arange(self.size, device=images.device)
        checkers = 1 - 2 * ((cells[:, None] + cells[None, :]) % 2)
        change = torch.zeros(height, width, dtype=torch.int16, device=images.device)
        for rows in (slice(self.size), slice(height - self.size, height)):
            for columns in (slice(self.size), slice(width - self.size, width)):
                change[rows, columns] = checkers * amplitude
        return (images.to(torch.int16) + change).clamp(0, 255).to(torch.uint8)
