"""Small changes to an image that leave what it shows alone: the questions of the consistency profile.

A trigger answers them abnormally in either direction: a static patch survives what benign content does
not, a fragile one (a warp, a faint pattern) dies under what benign content survives. All are
deterministic: there is nothing that a caller could draw again until it suits him.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PROBES", "Probe"]

NOISE_SEED = 20240229
NOISE = 0.06  # standard deviation, in pixel units of [0, 1]
DEGREES = 12
SHRUNK = 0.75


@dataclass(frozen=True)
class Probe:
    """`apply`: images (B, C, H, W) in [0, 1] → changed images of the same shape and range, on the same
    device. Costs one forward pass. A calibration is bound to `strength`: another one is another probe."""

    name: str
    strength: str
    apply: Callable[[Tensor], Tensor]


# What the probes need besides the images depends on their shape alone: it is made once and stays on the
# device, since making it for every batch would copy it there for every batch.


@lru_cache(maxsize=16)
def binomial(device: torch.device, dtype: torch.dtype) -> Tensor:
    """(3, 3): the product of (1 2 1)/4 with itself."""
    line = torch.tensor([0.25, 0.5, 0.25])
    return (line[:, None] * line[None, :]).to(device, dtype)


@lru_cache(maxsize=16)
def rotation_grid(shape: torch.Size, degrees: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, H, W, 2): where each pixel of a rotated image (C, H, W) comes from."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    height, width = shape[-2:]
    matrix = torch.tensor([[[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]]])
    return F.affine_grid(matrix, [1, *shape], align_corners=False).to(device, dtype)


@lru_cache(maxsize=16)
def noise_pattern(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(C, H, W): the one pattern of noise."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return torch.randn(shape, generator=generator).mul(NOISE).to(device, dtype)


def flip(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(-1)


def blur(images: Tensor) -> Tensor:
    """A binomial 3×3 blur, (1 2 1)/4 along either axis, edges repeated."""
    channels = images.shape[1]
    kernel = binomial(images.device, images.dtype).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def shift(images: Tensor) -> Tensor:
    """A sixteenth of the side (2 pixels of 32) down and to the right, edges repeated."""
    height, width = images.shape[-2:]
    down, right = max(1, round(height / 16)), max(1, round(width / 16))
    padded = F.pad(images, (right, 0, down, 0), mode="replicate")
    return padded[..., :height, :width]


def rotate(images: Tensor, degrees: float = DEGREES) -> Tensor:
    """A rotation about the middle, bilinear, edges repeated."""
    grid = rotation_grid(images.shape[1:], degrees, images.device, images.dtype)
    grid = grid.expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def shrink(images: Tensor) -> Tensor:
    """Three quarters of the size and back, bilinear: fine detail is lost."""
    height, width = images.shape[-2:]
    small = (max(1, round(height * SHRUNK)), max(1, round(width * SHRUNK)))
    less = F.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(less, (height, width), mode="bilinear", align_corners=False)


def noise(images: Tensor) -> Tensor:
    """One fixed pattern of Gaussian noise added to every image, clipped to [0, 1]."""
    return (images + noise_pattern(images.shape[1:], images.device, images.dtype)).clamp(0, 1)


PROBES = (
    Probe("flip", "left and right", flip),
    Probe("blur", "3×3 binomial", blur),
    Probe("shift", "1/16 of the side", shift),
    Probe("rotate", f"{DEGREES} degrees", rotate),
    Probe("shrink", f"to {SHRUNK}", shrink),
    Probe("noise", f"{NOISE} of seed {NOISE_SEED}", noise),
)
