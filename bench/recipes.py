"""Which networks are benched, and how each is built again, here or in a process of its own.

Unless told otherwise k is 0.55 · L, as 11 is of the 20 BatchNorm layers of a CIFAR ResNet-18, and n = 5.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.architecture import build_network
from models.loading import load_network

__all__ = ["NETWORKS", "OMEGA", "Recipe", "default_k", "noise", "settle"]

OMEGA = 1.5
K_SHARE = 0.55
SEED = 7


@dataclass(frozen=True)
class Recipe:
    """`architecture` as a bundle names it; `bundle` where the weights come from one, else they are random."""

    label: str
    architecture: str
    size: tuple[int, int]
    channels: int = 3
    bundle: str | None = None

    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *self.size)

    def build(self, device: torch.device) -> nn.Module:
        """The network, pixels → logits, in eval mode on `device`. The same one at every call."""
        if self.bundle is not None:
            return load_network(Path(self.bundle), device).network
        torch.manual_seed(SEED)
        return settle(build_network(self.architecture, {}), noise(4, self.shape())).to(device)


NETWORKS = {
    "resnet20": Recipe("resnet20", "zoo:resnet20", (32, 32)),
    "resnet18": Recipe("resnet18", "zoo:resnet18", (32, 32)),
    "resnet50": Recipe("resnet50", "torchvision:resnet50", (224, 224)),
}


def default_k(layers: int, n: int) -> int:
    """The first number of amplified layers of `layers`, low enough for `n` networks."""
    return max(1, min(round(K_SHARE * layers), layers - n + 1))


def noise(count: int, shape: tuple[int, int, int]) -> Tensor:
    """`count` images of uniform noise (count, C, H, W), always the same ones."""
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(SEED))


def settle(network: nn.Module, example: Tensor) -> nn.Module:
    """Give a random network the BatchNorm statistics of `example`, so that its activations neither die
    out nor overflow (both change how long arithmetic takes); returns it in eval mode, frozen."""
    network.eval().requires_grad_(False)
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    with torch.no_grad():
        network(example)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return network.eval()
