"""Backdoor attacks, one paper a file. An attack turns clean images into triggered ones."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from lab.attacks.badnets import BadNets
from lab.attacks.blend import Blend

__all__ = ["ATTACKS", "Attack"]


class Attack(Protocol):
    """A trigger. Deterministic: the same images give the same triggered images."""

    @property
    def name(self) -> str: ...

    def apply(self, images: Tensor) -> Tensor:
        """Put the trigger into `images` (N, C, H, W) uint8; returns new images of the same shape."""
        ...


ATTACKS: dict[str, Callable[[], Attack]] = {"badnets": BadNets, "blend": Blend}
