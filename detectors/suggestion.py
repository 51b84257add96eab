"""What does a rejected image really show? The label that the classifier gives once the trigger is disarmed.

Changes larger than the profile's probes break many triggers and leave most content readable. A change that
breaks the trigger takes the probability off the rejected label; how much it takes is its vote:

suggestion(x) = argmax_{c ≠ ŷ} Σ_t softmax(z(t(x)))_c

So changes under which the trigger holds hardly count. Where it holds under all of them, what is left of the
probabilities decides, as a runner-up does. There is no paper to be exact to: it is this project's own. Costs
`len(DISARMING)` forward passes, of rejected images only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.base import Classifier, InputError
from detectors.copies import logits_of_copies
from detectors.probes import rotate, rotation_grid

__all__ = ["DISARMING", "Suggestion", "border", "median", "move", "shrink_within", "suggest"]

DEGREES = 25
WITHIN = 0.8  # of the side


@dataclass(frozen=True)
class Suggestion:
    """`labels` (B,) int64, never the one that was predicted; `shares` (B,) in [0, 1], the mean probability of
    that label under the changes: near 0 where none of them disarmed anything."""

    labels: Tensor
    shares: Tensor


def move(images: Tensor, direction: int) -> Tensor:
    """An eighth of the side down and to the right (`direction` 1), or up and to the left (−1); edges
    repeated."""
    height, width = images.shape[-2:]
    down, right = max(1, round(height / 8)), max(1, round(width / 8))
    padded = F.pad(images, (right, right, down, down), mode="replicate")
    top, left = down * (1 - direction), right * (1 - direction)
    return padded[..., top : top + height, left : left + width]


def border(images: Tensor) -> Tensor:
    """The outermost eighth on every side gives way to the image's mean colour."""
    height, width = images.shape[-2:]
    top, left = max(1, round(height / 8)), max(1, round(width / 8))
    changed = images.mean((2, 3), keepdim=True).expand_as(images).clone()
    changed[..., top:-top, left:-left] = images[..., top:-top, left:-left]
    return changed


def shrink_within(images: Tensor) -> Tensor:
    """Four fifths of the size about the middle, edges repeated outwards: all stays, at other pixels."""
    grid = rotation_grid(images.shape[1:], 0.0, images.device, images.dtype) / WITHIN
    grid = grid.expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def median(images: Tensor) -> Tensor:
    """The median of every pixel's 3×3 neighbourhood, per channel, edges repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1)
    return around.reshape(*images.shape, 9).median(-1).values


DISARMING: tuple[Callable[[Tensor], Tensor], ...] = (
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
