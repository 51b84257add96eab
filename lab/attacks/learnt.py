"""Attacks that learn their trigger before they poison anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from lab.attacks.base import Attack

__all__ = ["Learnt"]


@dataclass(frozen=True)
class Learnt(Attack):
    """Base of the attacks that `prepared` has to make ready; what they learnt is in `learnt`, on the CPU."""

    learnt: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    def tensors(self) -> Mapping[str, Tensor]:
        return self.learnt

    def restored(self, tensors: Mapping[str, Tensor]) -> Self:
        """The prepared attack again; raises `ValueError` where `tensors` is empty."""
        ready = replace(self, learnt={name: tensor.detach().cpu() for name, tensor in tensors.items()})
        ready.required()
        return ready

    def required(self) -> Mapping[str, Tensor]:
        """`learnt`; raises `ValueError` where nothing was learnt yet."""
        if not self.learnt:
            raise ValueError(f"{self.name} learns its trigger from images: prepare it first")
        return self.learnt
