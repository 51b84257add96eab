"""Any number of images through a network that takes batches of certain sizes only."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["BatchBounds", "Bounded", "in_batches"]

BatchBounds = tuple[int, int | None]
"""The fewest and the most images of one call; no most: None."""


def in_batches(call: Callable[[Tensor], Tensor], images: Tensor, bounds: BatchBounds) -> Tensor:
    """`call` on all rows of `images` (B, ...), split into batches of at most `bounds[1]` rows; too few are
    filled up with blank ones, whose results are dropped."""
    least, most = bounds
    results = []
    for start in range(0, max(1, len(images)), most or max(1, len(images))):
        part = images[start : start + most] if most else images
        blank = part.new_zeros(max(0, least - len(part)), *part.shape[1:])
        results.append(call(torch.cat([part, blank]) if len(blank) else part)[: len(part)])
    return torch.cat(results) if len(results) > 1 else results[0]


class Bounded(nn.Module):
    """`network` behind `in_batches`."""

    def __init__(self, network: nn.Module, bounds: BatchBounds) -> None:
        super().__init__()
        self.network, self.bounds = network, bounds

    def forward(self, images: Tensor) -> Tensor:
        return in_batches(self.network, images, self.bounds)
