"""How far two ways of computing the same logits may be apart, and proof that they are no further."""

from collections.abc import Callable

import torch
from torch import Tensor

from detectors.base import UnsupportedNetwork

__all__ = ["TOLERANCE", "check_agreement", "logits_and_tolerance"]

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest logit of its network, that always passes for
float32 rounding."""
CHAOS = (10.0, 0.05)
"""Amplification can make a network so steep that rounding alone moves its logits more than that. Then
this many times what a nudge of the pixels' last bit does to them passes too, up to the second number."""


def logits_and_tolerance(network: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
    """The logits of `network`, and how far rounding may move them: a share of the largest, see CHAOS."""
    logits: Tensor = network(images)
    nudge = torch.linspace(-2e-7, 2e-7, images[0].numel(), dtype=images.dtype, device=images.device)
    nudged = network(images + nudge.view_as(images[0]))
    times, most = CHAOS
    return logits, min(max(TOLERANCE, times * _difference(nudged, logits)), most)


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = expected.float().abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found.float() - expected.float()).abs().amax() / scale)


def check_agreement(found: Tensor, expected: Tensor, tolerance: float, name: str) -> None:
    """Raise `UnsupportedNetwork`, which says `name`, unless the logits (B, K) agree; inf and NaN do not."""
    if found.shape != expected.shape:
        raise UnsupportedNetwork(f"{name}: logits of shape {tuple(found.shape)}, not {tuple(expected.shape)}")
    error = _difference(found, expected)
    if not error <= tolerance:
        raise UnsupportedNetwork(f"self-check failed ({name}): logits differ by {error:.1e} of their scale")
