"""Benign images that a detector keeps, to compare others with: STRIP's overlays.

They are the first images of a calibration, chosen before anything is measured. They become part of the
fit, since the gateway needs them again after a restart, and they are never scored themselves: an image
compared with itself would look more benign, or less, than a new one. So a detector is first given its
references (`comparing_with`) and measures then; detectors without references know nothing of this.
"""

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.base import CalibrationError, Detector, Fit, InputError

__all__ = [
    "MOST_REFERENCES",
    "REFERENCES",
    "Comparing",
    "References",
    "enlarged",
    "keep_references",
    "pack",
    "references_wanted",
    "unpack",
    "with_references",
    "without_references",
]

REFERENCES = "references"  # the key of a fit under which they lie, so that reports can leave them out
MOST_REFERENCES = 100  # what STRIP's authors take
MOST_BYTES = 32 * 1024  # of one image: 3 × 104 × 104

References = Mapping[str, Fit]
"""What each comparing detector keeps, by its name."""


@runtime_checkable
class Comparing(Protocol):
    """What a detector has besides `Detector` where it compares images with benign ones."""

    @property
    def references(self) -> int:
        """How many benign images it wants, at most `MOST_REFERENCES`."""
        ...

    def comparing_with(self, kept: Fit) -> Detector:
        """The same detector with its references at hand; only such a one measures and fits."""
        ...


def references_wanted(detectors: Sequence[Detector]) -> int:
    """How many benign images must be set aside for `detectors` before measuring; they share them."""
    return max((each.references for each in detectors if isinstance(each, Comparing)), default=0)


def keep_references(detectors: Sequence[Detector], images: Tensor) -> References:
    """What `detectors` keep of benign `images` (R, C, H, W) in [0, 1]. Raises `CalibrationError`."""
    wanted = references_wanted(detectors)
    if len(images) < wanted:
        raise CalibrationError(
            f"{len(images)} benign images are too few: {wanted} are kept for comparison: send more"
        )
    comparing = [each for each in detectors if isinstance(each, Comparing)]
    return {each.name: {REFERENCES: pack(images[: each.references])} for each in comparing}


def with_references(detector: Detector, references: References) -> Detector:
    """`detector` as it measures and fits: with its references, where it wants any and there are some."""
    if isinstance(detector, Comparing) and detector.name in references:
        return detector.comparing_with(references[detector.name])
    return detector


def without_references(fit: Fit) -> dict[str, Any]:
    """A fit as a report shows it: somebody's pictures do not belong there."""
    return {key: value for key, value in fit.items() if key != REFERENCES}


def pack(images: Tensor) -> dict[str, Any]:
    """Images (R, C, H, W) in [0, 1] as JSON: 8 bits a channel, shrunk where one exceeds 32 KiB."""
    channels, height, width = images.shape[1:]
    if channels * height * width > MOST_BYTES:
        scale = math.sqrt(MOST_BYTES / (channels * height * width))
        small = max(1, int(height * scale)), max(1, int(width * scale))
        images = F.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return {
        "shape": list(pixels.shape[1:]),
        "pixels": [base64.b64encode(image.tobytes()).decode("ascii") for image in pixels],
    }


def unpack(packed: Mapping[str, Any]) -> Tensor:
    """The images again, (R, C, H, W) float32 in [0, 1], as small as they are kept.

    Raises `CalibrationError` where `packed` is not what `pack` returns.
    """
    try:
        shape = tuple(int(side) for side in packed["shape"])
        rows = [np.frombuffer(base64.b64decode(text, validate=True), np.uint8) for text in packed["pixels"]]
        images = torch.from_numpy(np.stack(rows).reshape(-1, *shape)).float() / 255
        if len(shape) != 3 or len(images) != len(rows):
            raise InputError(f"{len(shape)} sides")
    except (KeyError, TypeError, ValueError, binascii.Error, InputError) as error:
        raise CalibrationError("the kept images cannot be read: calibrate again") from error
    return images


def enlarged(kept: Tensor, like: Tensor) -> Tensor:
    """Unpacked images (R, C, h, w) in the size and on the device of the images `like` (B, C, H, W)."""
    kept = kept.to(like.device)
    if kept.shape[-2:] == like.shape[-2:]:
        return kept
    return F.interpolate(kept, like.shape[-2:], mode="bilinear", align_corners=False)
