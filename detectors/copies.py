"""Many changed copies of a batch through the classifier: few large batches, and never too large a one."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detectors.base import Classifier

__all__ = ["MOST_ROWS", "Change", "logits_of_copies"]

MOST_ROWS = 1024
"""Rows of one forward pass, unless the caller's own batch is larger: bounds the memory for copies."""

Change = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] → changed images of the same shape and range."""


def logits_of_copies(classifier: Classifier, images: Tensor, changes: Sequence[Change]) -> Tensor:
    """The classifier's logits (len(changes), B, K) for every change of `images` (B, C, H, W)."""
    together = max(1, MOST_ROWS // max(1, len(images)))
    groups = [changes[start : start + together] for start in range(0, len(changes), together)]
    logits = [classifier.logits(torch.cat([change(images) for change in group])) for group in groups]
    return torch.cat(logits).view(len(changes), len(images), -1)
