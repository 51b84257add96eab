"""ShrinkPad: does the prediction survive a little shrinking and moving? (Li et al., 2021, arXiv:2104.02361)

A backdoor depends on where its trigger lies and on how it looks (section 3 of the paper); shrinking the
image by 4 of 32 pixels (bilinear) and padding it with zeros at a random place changes both, and leaves
what it shows recognisable (section 4). The paper pads once, at random, and answers with the new label.

As a detector (`inconsistency`) it asks at five places, the four corners and the middle, instead of one
at random: nobody can send an image again until the place suits him. Costs 5 forward passes.
"""

from functools import partial

from torch import Tensor
from torch.nn import functional as F

from detectors.base import Classifier
from detectors.inconsistency import Inconsistency

__all__ = ["PLACES", "shrink_and_pad", "shrinkpad"]

SHARE = 1 / 8  # of each side: the paper's 4 of 32 pixels
PLACES = {
    "middle": (0.5, 0.5),
    "top left": (0.0, 0.0),
    "top right": (0.0, 1.0),
    "bottom left": (1.0, 0.0),
    "bottom right": (1.0, 1.0),
}
"""Where the shrunken image goes: shares of the free rows and columns that lie above it and left of it."""


def shrink_and_pad(images: Tensor, place: tuple[float, float]) -> Tensor:
    """Images (B, C, H, W) an eighth smaller, on zeros, at `place`; the same shape."""
    height, width = images.shape[-2:]
    rows, columns = min(height - 1, round(height * SHARE)), min(width - 1, round(width * SHARE))
    small = F.interpolate(
        images, (height - rows, width - columns), mode="bilinear", align_corners=False, antialias=True
    )
    above, left = round(rows * place[0]), round(columns * place[1])
    return F.pad(small, (left, columns - left, above, rows - above)).clamp(0, 1)


def shrinkpad(classifier: Classifier) -> Inconsistency:
    """The detector."""
    changes = {name: partial(shrink_and_pad, place=place) for name, place in PLACES.items()}
    return Inconsistency("shrinkpad", classifier, changes)
