"""DeepSweep: does the prediction survive image augmentation? (Qiu et al., AsiaCCS 2021, arXiv:2012.07006)

The paper searches 71 augmentations for two policies: one to fine-tune the network with, until it forgets
its backdoor, and one to transform each input with, until its trigger no longer works.

What is taken from it, as a black-box detector (`inconsistency`), is the second half alone: fine-tuning
would change the classifier that is guarded, which a firewall does not. The six transformations here are
of the kinds that it searches (affine, optical distortion, gamma compression, filters, quantisation), fixed
instead of random; which six, and how strong, is our choice and not the policy that its search found on
its own models. Each is asked alone; the paper applies them one after the other. Costs 6 forward passes.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors.base import Classifier
from detectors.copies import Change
from detectors.inconsistency import Inconsistency
from detectors.jpeg import jpeg

__all__ = ["TRANSFORMATIONS", "deepsweep"]

DEGREES, SCALE, SHIFT = 10.0, 0.9, 1 / 16  # of the affine map: rotation, size, share of the side
BARREL = 0.25  # how much further from the middle the middle of an edge is read
GAMMA = 1.8
LEVELS = 8  # three bits a channel
QUALITY = 40


@lru_cache(maxsize=16)
def affine_grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """(1, H, W, 2): rotated, shrunk and moved."""
    cosine = math.cos(math.radians(DEGREES)) / SCALE
    sine = math.sin(math.radians(DEGREES)) / SCALE
    matrix = torch.tensor([[[cosine, -sine, 2 * SHIFT], [sine, cosine, -2 * SHIFT]]])
    return F.affine_grid(matrix, [1, 1, *size], align_corners=False).to(device)


@lru_cache(maxsize=16)
def barrel_grid(size: tuple[int, int], device: torch.device) -> Tensor:
    """(1, H, W, 2): read further from the middle the further out, r (1 + k r²)."""
    plain = F.affine_grid(torch.eye(2, 3)[None], [1, 1, *size], align_corners=False)
    return (plain * (1 + BARREL * plain.square().sum(-1, keepdim=True))).to(device)


def moved(images: Tensor, grid: Tensor) -> Tensor:
    grid = grid.to(images.dtype).expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False).clamp(0, 1)


def affine(images: Tensor) -> Tensor:
    return moved(images, affine_grid((images.shape[-2], images.shape[-1]), images.device))


def optical_distortion(images: Tensor) -> Tensor:
    return moved(images, barrel_grid((images.shape[-2], images.shape[-1]), images.device))


def gamma_compression(images: Tensor) -> Tensor:
    """Dark levels are pulled up: x^(1/γ)."""
    return images ** (1 / GAMMA)


def median(images: Tensor) -> Tensor:
    """The median of each pixel's 3×3 neighbourhood, edges repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    shifted = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(shifted).median(0).values


def bit_depth(images: Tensor) -> Tensor:
    return (images * (LEVELS - 1)).round() / (LEVELS - 1)


def compression(images: Tensor) -> Tensor:
    return jpeg(images, QUALITY)


TRANSFORMATIONS: dict[str, Change] = {
    f"affine {DEGREES:g} degrees, {SCALE:g}, {SHIFT:g}": affine,
    f"optical distortion {BARREL:g}": optical_distortion,
    f"gamma {GAMMA:g}": gamma_compression,
    "median 3×3": median,
    f"{LEVELS} levels": bit_depth,
    f"jpeg {QUALITY}": compression,
}


def deepsweep(classifier: Classifier) -> Inconsistency:
    """The detector."""
    return Inconsistency("deepsweep", classifier, TRANSFORMATIONS)
