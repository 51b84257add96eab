"""TaCT, targeted contamination: the trigger works on one class alone (Tang et al., 2021, arXiv:1908.00686,
section 3). Cover images of other classes carry it and keep their labels, so the network must look at both.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lab.attacks.badnets import BadNets
from lab.attacks.base import Poisoned
from lab.data import ImageSet

__all__ = ["TaCT"]


@dataclass(frozen=True)
class TaCT(BadNets):
    """The patch of `BadNets` on images of class `source`; `cover_ratio` images of the classes `covers` for
    each of them carry it too and keep their labels.

    The poisoning rate is a share of all images, but never of more than half of the source class: were all
    its images relabelled, the network would not know that class at all.
    """

    name: ClassVar[str] = "tact"
    source: int = 1
    covers: tuple[int, ...] = (5, 7)
    cover_ratio: float = 1.0

    def victims(self, labels: Tensor, target: int) -> Tensor:
        return labels == self.source

    def check(self, data: ImageSet, target: int) -> None:
        super().check(data, target)
        named = (self.source, *self.covers)
        if not all(0 <= label < len(data.classes) for label in named):
            raise ValueError(
                f"source {self.source} and covers {self.covers} must be among 0..{len(data.classes) - 1}"
            )
        if target == self.source:
            raise ValueError(f"the source class {target} is the target label: choose another `source`")
        if {target, self.source} & set(self.covers):
            raise ValueError(f"covers {self.covers} must not hold the target {target} or the source")
        if not (data.labels == self.source).any():
            raise ValueError(f"no training image is of the source class {self.source}")

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        generator = torch.Generator().manual_seed(seed)
        sources = _shuffled(data.labels == self.source, generator)
        others = _shuffled(torch.isin(data.labels, torch.tensor(self.covers)), generator)
        chosen = sources[: min(round(rate * len(data)), len(sources) // 2)]
        cover = others[: round(self.cover_ratio * len(chosen))]
        triggered, covered = self.apply(data.images[chosen]), self.apply(data.images[cover])
        return Poisoned.of(data, target, (chosen, triggered), (cover, covered))


def _shuffled(mask: Tensor, generator: torch.Generator) -> Tensor:
    """The positions where `mask` (N,) holds, in random order."""
    positions = mask.nonzero().flatten()
    return positions[torch.randperm(len(positions), generator=generator)]
