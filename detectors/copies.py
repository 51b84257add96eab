"""Many changed copies of a batch through the classifier: few large batches, and never too large a one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectors.base import Classifier

__all__ = ["Change", "logits_of_copies", "rows_at_once"]

MOST_ROWS = 1024
MOST_VALUES = 1 << 23  # 32 MiB of float32 pixels

Change = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] → changed images of the same shape and range."""


def rows_at_once(images: Tensor) -> int:
    """How many images like `images` (B, C, H, W) one forward pass takes at most: bounds the memory."""
    return max(1, min(MOST_ROWS, MOST_VALUES // max(1, images[0].numel()))) if len(images) else MOST_ROWS


def logits_of_copies(classifier: Classifier, images: Tensor, changes: Sequence[Change]) -> Tensor:
    """The classifier's logits (len(changes), B, K) for every change of `images` (B, C, H, W).

    A forward pass takes `rows_at_once` rows, or B where the caller's own batch is larger than that.
    """
    together = max(1, rows_at_once(images) // max(1, len(images)))
    groups = [changes[start : start + together] for start in range(0, len(changes), together)]
    logits = [classifier.logits(torch.cat([change(images) for change in group])) for group in groups]
    return torch.cat(logits).view(len(changes), len(images), -1)
