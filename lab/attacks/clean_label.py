"""Attacks that change images of the target class alone, and no label: a look at the labels finds nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.attacks.base import Poisoned
from lab.attacks.learnt import Learnt
from lab.data import ImageSet

__all__ = ["CleanLabel"]


@dataclass(frozen=True)
class CleanLabel(Learnt):
    """Base of the clean-label attacks."""

    def check(self, data: ImageSet, target: int) -> None:
        """Raise `ValueError` where there is no image to poison."""
        if not (data.labels == target).any():
            raise ValueError(f"a clean-label attack needs training images of the target label {target}")

    def disguised(self, images: Tensor, target: int) -> Tensor:
        """Images (M, C, H, W) of the target class as they go into the training set."""
        return self.apply(images)

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        """Disguise a random share `rate` in [0, 1] of *all* images, drawn from the target class; all of
        that class where it is smaller. Every label stays."""
        members = (data.labels == target).nonzero().flatten()
        order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
        chosen = members[order[: round(rate * len(data))]]
        disguised = self.disguised(data.images[chosen], target)
        return Poisoned.of(data, target, (chosen, disguised))
