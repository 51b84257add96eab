"""What does a rejected image really show? The label that the classifier gives once the trigger is disarmed.

Changes larger than the profile's probes break many triggers and leave most content readable. A change that
breaks the trigger takes the probability off the rejected label; how much it takes is its vote:

suggestion(x) = argmax_{c ≠ ŷ} Σ_t softmax(z(t(x)))_c

So changes under which the trigger holds hardly count. Where it holds under all of them, what is left of the
probabilities decides, as a runner-up does. There is no paper to be exact to: it is this project's own. Costs
`len(DISARMING)` forward passes, of rejected images only.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from detectors.base import Classifier, InputError
from detectors.changes import border, median, move, rotate, shrink_within
from detectors.copies import Change, logits_of_copies

__all__ = ["DISARMING", "Suggestion", "suggest"]

DEGREES = 25


@dataclass(frozen=True)
class Suggestion:
    """`labels` (B,) int64, never the one that was predicted; `shares` (B,) in [0, 1], the mean probability of
    that label under the changes: near 0 where none of them disarmed anything."""

    labels: Tensor
    shares: Tensor


DISARMING: tuple[Change, ...] = (
    partial(move, direction=1),
    partial(move, direction=-1),
    partial(rotate, degrees=DEGREES),
    partial(rotate, degrees=-DEGREES),
    border,
    shrink_within,
    median,
)


@torch.inference_mode()
def suggest(classifier: Classifier, images: Tensor, rejected: Tensor) -> Suggestion:
    """What `images` (B, C, H, W) in [0, 1], B ≥ 1, show if not the label that they were `rejected` with,
    (B,) int64. Raises `InputError` for a classifier of one class."""
    if classifier.num_classes < 2:
        raise InputError("a classifier of one class leaves no other label to suggest")
    logits = logits_of_copies(classifier, images, DISARMING)
    votes = logits.softmax(-1).nan_to_num(nan=0.0).mean(0)
    votes = votes.scatter(1, rejected[:, None], -math.inf)
    shares, labels = votes.max(1)
    return Suggestion(labels, shares)
