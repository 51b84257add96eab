"""Tiny classifiers whose answers can be worked out by hand."""

import torch
from torch import Tensor, nn

from tests.detectors.networks import lively

__all__ = ["Brightness", "Chain", "Network", "bn_chain"]


class Network:
    """Any module as a classifier, in the shape that detectors ask for; counts the rows of every call."""

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        self.network: nn.Module | None = network.eval().requires_grad_(False)
        self._module, self.num_classes = network, num_classes
        self.calls: list[int] = []

    def logits(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        out: Tensor = self._module(images)
        return out.float()


class Brightness(nn.Module):
    """Class 0, 1 or 2 by the mean pixel: below 0.3, from 0.3, from 0.8. Normalises by itself first:
    (x − 0.5) / 0.25, so that scaling after normalisation would give other answers."""

    def forward(self, images: Tensor) -> Tensor:
        z = ((images - 0.5) / 0.25).mean((1, 2, 3))
        return torch.stack([-(z + 0.8).sign(), (z + 0.8).sign() - (z - 1.2).sign(), (z - 1.2).sign() * 3], 1)


class Chain(nn.Module):
    """Linear → BatchNorm → ReLU, `depth` times, on (B, 1, 3, 3) and 4 classes.

    The layers are registered in reverse: norm0 runs first.
    """

    def __init__(self, depth: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.depth = depth
        self.norms = nn.ModuleDict({f"norm{number}": nn.BatchNorm1d(16) for number in reversed(range(depth))})
        sides = [9] + [16] * depth
        self.linears = nn.ParameterList(
            [torch.randn(16, sides[n], generator=generator) / sides[n] ** 0.5 for n in range(depth)]
        )
        self.head = nn.Parameter(torch.randn(4, 16, generator=generator) / 2)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1) - 0.5
        for number in range(self.depth):
            x = torch.relu(self.norms[f"norm{number}"](x @ self.linears[number].T))
        return x @ self.head.T


def bn_chain(depth: int = 6, seed: int = 0) -> Chain:
    """A `Chain` whose predictions vary from image to image, in eval mode."""
    example = torch.rand(200, 1, 3, 3, generator=torch.Generator().manual_seed(99))
    chain = lively(Chain(depth, seed), example, seed)
    assert isinstance(chain, Chain)
    return chain
