"""Between bytes and floats: every trigger ends as whole grey levels, as a submitted file has them."""

import torch
from torch import Tensor

__all__ = ["to_bytes"]


def to_bytes(pixels: Tensor) -> Tensor:
    """Floats in units of 0–255 → uint8, rounded to the nearest level and clipped."""
    return pixels.round().clamp(0, 255).to(torch.uint8)
