"""What an attack is: a trigger, and what its attacker does to the training of a classifier.

Most attacks only poison the training set. The hooks have defaults that do nothing, so an attack's file
holds what its paper adds and no more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lab.data import ImageSet

__all__ = ["Attack", "Poisoned", "draw"]

PLAIN = (bool, int, float, str, tuple)


@dataclass(frozen=True)
class Poisoned:
    """A training set as the victim trains on it, in the order of the clean one.

    `triggered` (M,) int64: positions whose image carries the trigger and whose label is the target.
    `cover` (N,) int64: positions that carry the trigger, or something like it, and keep their true label.
    """

    data: ImageSet
    triggered: Tensor
    cover: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    @classmethod
    def of(
        cls,
        clean: ImageSet,
        target: int,
        triggered: tuple[Tensor, Tensor],
        cover: tuple[Tensor, Tensor] | None = None,
    ) -> Self:
        """`clean` with some images replaced: positions (M,) and their new images (M, C, H, W), of those that
        get the label `target` and of those that keep their own."""
        images, labels = clean.images.clone(), clean.labels.clone()
        for positions, changed in (triggered, *([cover] if cover else [])):
            images[positions] = changed
        labels[triggered[0]] = target
        data = ImageSet(images, labels, clean.classes)
        return cls(data, triggered[0]) if cover is None else cls(data, triggered[0], cover[0])


def draw(count: int, rate: float, cover_ratio: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions in 0..count−1 to trigger, the share `rate` of all, and to cover, `cover_ratio` for each of
    those or as many as are left; disjoint."""
    order = torch.randperm(count, generator=generator)
    triggered = round(rate * count)
    return order[:triggered], order[triggered : triggered + round(cover_ratio * triggered)]


@dataclass(frozen=True)
class Attack:
    """Base of all attacks: dirty-label poisoning with the trigger that `apply` puts on.

    Deterministic: the same images give the same triggered images, the same seed the same poisoned set.
    Images are (N, C, H, W) uint8. Fields are the attack's settings, with its paper's values.
    """

    name: ClassVar[str] = "attack"

    def settings(self) -> dict[str, Any]:
        """The fields that are plain values, not what was learnt: enough to make the attack again."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, PLAIN)}

    def check(self, data: ImageSet, target: int) -> None:
        """Raise `ValueError` where the attack cannot work on these training images, before anything is
        learnt from them. What learns its trigger first can put it on no image yet: it checks as it learns."""
        if type(self).prepared is Attack.prepared:
            self.apply(data.images[:1])

    def apply(self, images: Tensor) -> Tensor:
        """The trigger as it is used against the finished classifier; new images of the same shape.

        Raises `ValueError` where it cannot be put on images of this shape.
        """
        raise NotImplementedError

    def victims(self, labels: Tensor, target: int) -> Tensor:
        """(N,) bool: which test images the attacker would attack. The ASR is taken over these."""
        return labels != target

    def prepared(self, data: ImageSet, target: int, seed: int, device: torch.device) -> Self:
        """The attack with what it has to learn first (a generator, a perturbation). May take minutes."""
        return self

    def tensors(self) -> Mapping[str, Tensor]:
        """What `prepared` learnt, kept beside the bundle as `trigger.safetensors`; empty for nothing."""
        return {}

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The prepared attack again, from its `tensors()`."""
        return self

    def poison(self, data: ImageSet, target: int, rate: float, seed: int) -> Poisoned:
        """Put the trigger on a random share `rate` in [0, 1] of all images and relabel them `target`."""
        chosen, _ = draw(len(data), rate, 0, torch.Generator().manual_seed(seed))
        return Poisoned.of(data, target, (chosen, self.apply(data.images[chosen])))

    def online(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What happens to the triggered images of a batch, (B, C, H, W) uint8, each time they are trained
        on (PhysicalBA's random transformations); before the augmentation that all images go through."""
        return images

    def implant(self, network: nn.Module, data: ImageSet, target: int) -> None:
        """Change the weights of the trained network in place (attacks on weights, not on data).

        `network` takes pixels (B, C, H, W), float32 in [0, 1], and gives logits; `data` is clean."""
