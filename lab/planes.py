"""Decoded pixels as networks take them."""

import numpy as np

__all__ = ["planes"]


def planes(pixels: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C) → (C, H, W), laid out so in memory, too.

    `np.stack` keeps the order in which its arrays lie in memory. A batch of mere views is then channels-last,
    and a network whose weights are not converts them at every layer:
    one image took half as long again.
    """
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
