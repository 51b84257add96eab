"""Made-up triggers of five kinds, to learn from what triggers look like without ever having seen one.

White patch, coloured patch, Gaussian noise, shadow and blend, the kinds of Zeng et al. (ICCV 2021,
section 4.1), with strengths of our own. Which kind an image gets, and where, depends on its pixels alone.
"""

import math
import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["KINDS", "with_synthetic_trigger"]

LARGEST_PATCH = 0.25  # of a side
NOISE = (0.02, 0.2)  # standard deviation, pixels in [0, 1]
SHADE = (0.3, 0.8)  # what a shadow leaves of the light
BLEND = (0.1, 0.3)  # share of the pattern

Kind = Callable[[Tensor, np.random.Generator], Tensor]
"""(C, H, W) and random numbers → the image with a trigger, perhaps outside [0, 1]."""


def numbers(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def patch(image: Tensor, random: np.random.Generator, *, white: bool) -> Tensor:
    """A rectangle at a random place, white or of random pixels."""
    channels, height, width = image.shape
    rows = int(random.integers(1, max(1, int(height * LARGEST_PATCH)) + 1))
    columns = int(random.integers(1, max(1, int(width * LARGEST_PATCH)) + 1))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    patched = image.clone()
    pixels = numbers(random.random((channels, rows, columns)))
    patched[:, top : top + rows, left : left + columns] = 1.0 if white else pixels
    return patched


def white_patch(image: Tensor, random: np.random.Generator) -> Tensor:
    return patch(image, random, white=True)


def coloured_patch(image: Tensor, random: np.random.Generator) -> Tensor:
    return patch(image, random, white=False)


def noise(image: Tensor, random: np.random.Generator) -> Tensor:
    return image + random.uniform(*NOISE) * numbers(random.standard_normal(image.shape))


def shadow(image: Tensor, random: np.random.Generator) -> Tensor:
    """One side of a random line is darker."""
    angle, offset = random.uniform(0, 2 * math.pi), random.uniform(-0.3, 0.3)
    rows, columns = (torch.linspace(-1, 1, side) for side in image.shape[1:])
    beyond = columns[None, :] * math.cos(angle) + rows[:, None] * math.sin(angle) > offset
    return torch.where(beyond, image * random.uniform(*SHADE), image)


def blend(image: Tensor, random: np.random.Generator) -> Tensor:
    """A pattern of random squares, from two across to one a pixel, shines through."""
    channels, height, width = image.shape
    across = int(random.integers(2, max(2, min(height, width)) + 1))
    pattern = numbers(random.random((1, channels, across, across)))
    pattern = F.interpolate(pattern, (height, width), mode="nearest")[0]
    return torch.lerp(image, pattern, float(random.uniform(*BLEND)))


KINDS: tuple[Kind, ...] = (white_patch, coloured_patch, noise, shadow, blend)


def with_synthetic_trigger(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [0, 1], each with one trigger; the same shape, range and device.

    Works on the host, image by image: it is for calibration, not for traffic.
    """
    triggered = []
    for image in images.cpu().float():
        levels = (image * 255).round().to(torch.uint8)
        random = np.random.default_rng(zlib.crc32(levels.numpy().tobytes()))
        kind = KINDS[int(random.integers(len(KINDS)))]
        triggered.append(kind(image, random).clamp(0, 1))
    return torch.stack(triggered).to(images.device, images.dtype) if triggered else images.clone()
