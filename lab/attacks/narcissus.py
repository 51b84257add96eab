"""NARCISSUS (Zeng et al., CCS 2023, arXiv:2204.05255): a clean-label attack with few poisoned images."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from lab.attacks.clean_label import CleanLabel
from lab.attacks.perturbation import perturbed, universal
from lab.attacks.surrogate import surrogate
from lab.data import ImageSet

__all__ = ["Narcissus"]


@dataclass(frozen=True)
class Narcissus(CleanLabel):
    """A universal perturbation that makes images of the target class even more typical of it.

    Learnt on the *target class alone* against a surrogate, maximum norm `epsilon` levels; a victim needs to
    see it on a few images (the paper: a poison rate of 0.0005 of CIFAR-10). Against the finished classifier
    it is added `magnification` times. Departures: the surrogate is trained on the training images, not on
    public ones of other classes and then warmed up on the target class; `steps` of Adam instead of 1000
    passes over the class.
    So magnified it fools small networks that were never poisoned, too: read its ASR beside that of a benign
    model.
    """

    name: ClassVar[str] = "narcissus"
    epsilon: int = 16
    magnification: int = 3
    steps: int = 300

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        self.check(data, target)
        own = data.take(data.labels == target)
        network = surrogate(data, seed, device)
        return self.restored({"delta": universal(network, own, target, self.epsilon, self.steps, seed)})

    def apply(self, images: Tensor) -> Tensor:
        return perturbed(images, self.magnification * self.required()["delta"])

    def disguised(self, images: Tensor, target: int) -> Tensor:
        return perturbed(images, self.required()["delta"])
