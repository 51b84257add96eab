"""Ways to run the n + 1 networks that nobody should use: what the engine is measured against.

Both satisfy `detectors.amplification.Amplified`, so that all contenders compute the same scores.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from detectors.amplification import amplify

__all__ = ["DeepCopies", "Stacked"]


def amplified_copy(network: nn.Module, names: Sequence[str], omega: float) -> nn.Module:
    """A copy of all of `network` with γ and β of the layers `names` times `omega`; shares nothing, unlike
    `detectors.amplification.amplify`. Raises ValueError for a layer without γ and β."""
    variant = copy.deepcopy(network)
    for name in names:
        layer: Any = variant.get_submodule(name)
        if layer.weight is None:
            raise ValueError(f"layer {name!r} has no weights to amplify")
        layer.weight.mul_(omega)
        layer.bias.mul_(omega)
    return variant


class DeepCopies:
    """Every batch copies and amplifies the network n times, as published implementations of IBD-PSC do."""

    engine = "deep copies"

    def __init__(self, network: nn.Module, omega: float, counts: Sequence[int], order: Sequence[str]) -> None:
        self.network, self.omega, self.counts, self.order = network, omega, tuple(counts), order

    @torch.inference_mode()
    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.network(images)
        return logits.float(), images

    @torch.inference_mode()
    def variants(self, forks: Tensor, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        images = forks if rows is None else forks[rows]
        logits = []
        for number in which:
            variant = amplified_copy(self.network, self.order[-self.counts[number] :], self.omega)
            logits.append(variant(images).float())
        return torch.stack(logits)


class Stacked:
    """The weights of all n + 1 networks stacked, and the whole batch sent through all of them at once."""

    engine = "stacked"

    def __init__(self, network: nn.Module, omega: float, counts: Sequence[int], order: Sequence[str]) -> None:
        self.counts = tuple(counts)
        networks = [amplify(network, order[len(order) - count :], omega) for count in (0, *counts)]
        stacked = stack_module_state(networks)
        self.parameters, self.buffers = ({k: v.detach() for k, v in part.items()} for part in stacked)
        skeleton = copy.deepcopy(networks[0]).to("meta")

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Any:
            return functional_call(skeleton, (parameters, buffers), (images,))

        self._run = vmap(one, in_dims=(0, 0, None))

    @torch.inference_mode()
    def base(self, images: Tensor, first: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        logits: Tensor = self._run(self.parameters, self.buffers, images).float()  # (n + 1, B, K)
        return logits[0], logits[1:]

    @torch.inference_mode()
    def variants(self, forks: Tensor, which: Sequence[int], rows: Tensor | None = None) -> Tensor:
        chosen = forks[list(which)]
        return chosen if rows is None else chosen[:, rows]
