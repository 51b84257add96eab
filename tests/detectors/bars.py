"""Images that a small network learns in a second, and that network: something to implant a backdoor in."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CLASSES", "bars", "trained_network"]

CLASSES = 4


def bars(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(count, 1, 16, 16) in [0, 1]: noise with a bright bar, whose place among four is the label (count,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = 0.5 * torch.rand(count, 1, 16, 16, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * label : 4 * label + 3, 2:14] += 0.35
    return images, labels


def network(norm: bool = True) -> nn.Module:
    """Two convolutions, with BatchNorm or without."""
    layers: list[nn.Module] = []
    for inputs, outputs in [(1, 8), (8, 16)]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *([nn.BatchNorm2d(outputs)] if norm else [])]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 16, CLASSES))


@cache
def trained_network(norm: bool = True) -> nn.Module:
    """The network, trained; shared by all tests that only read it."""
    torch.manual_seed(0)
    module = network(norm).train()
    images, labels = bars(256, seed=99)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(25):
        loss = F.cross_entropy(module(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    optimiser.zero_grad()  # no trace of the training is left
    return module.eval().requires_grad_(False)
