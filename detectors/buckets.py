"""Few batch sizes instead of all: kernels that are compiled or recorded for one shape serve many batches.

The sizes are the powers of two and the numbers half-way between them (1, 2, 3, 4, 6, 8, 12, ...): at most a
third of a bucket is padding. The padding repeats an image of the batch, so it holds no value that the batch
does not hold, and its rows are dropped before anybody reads the logits.
"""

import torch
from torch import Tensor

__all__ = ["bucket", "pad_images", "pad_rows"]


def bucket(rows: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, ... that is at least `rows` ≥ 1."""
    power = 1 << max(0, (rows - 1).bit_length())
    between = power * 3 // 4
    return between if power >= 4 and between >= rows else power


def pad_images(images: Tensor) -> Tensor:
    """(B, ...) → (bucket(B), ...): the last image is repeated."""
    missing = bucket(len(images)) - len(images)
    return images if missing == 0 else torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])


def pad_rows(rows: Tensor) -> Tensor:
    """Row numbers (R ≥ 1,) → (bucket(R),): the last one is repeated."""
    return pad_images(rows)
