"""TUAP: a targeted universal adversarial perturbation (Zhao et al., CVPR 2020, arXiv:2003.03030)."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from lab.attacks.clean_label import CleanLabel
from lab.attacks.perturbation import perturbed, universal
from lab.attacks.surrogate import surrogate
from lab.data import ImageSet

__all__ = ["Tuap"]


@dataclass(frozen=True)
class Tuap(CleanLabel):
    """A universal perturbation that takes images of *other* classes for the target, used as the trigger.

    Zhao et al. put it into a corner of videos and blur the poisoned ones with a further perturbation. Taken
    here is the form in which image studies compare it: over the whole image, maximum norm `epsilon` levels
    (8/255), nothing else changed. Departures: Adam on the expected loss instead of DeepFool steps image by
    image, and a small surrogate (lab.attacks.surrogate).
    """

    name: ClassVar[str] = "tuap"
    epsilon: int = 8
    steps: int = 300

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        self.check(data, target)
        others = data.take(data.labels != target)
        if not len(others):
            raise ValueError(f"all images are of the target label {target}: there is nothing to perturb")
        network = surrogate(data, seed, device)
        return self.restored({"delta": universal(network, others, target, self.epsilon, self.steps, seed)})

    def apply(self, images: Tensor) -> Tensor:
        return perturbed(images, self.required()["delta"])
