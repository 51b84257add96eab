"""Harmless changes of the world that images come from: what a drift watch should notice and name."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["SHIFTS", "darker", "jpeg", "noisy"]

DUSK, NIGHT = 0.6, 0.3
NOISE = 0.08  # standard deviation, in pixel units of [0, 1]
QUALITY = 20  # of JPEG, 1..95


def darker(images: Tensor, factor: float = DUSK) -> Tensor:
    """(N, C, H, W) uint8, all pixels times `factor` ≥ 0: the light has changed."""
    return (images.float() * factor).round().clamp(0, 255).to(torch.uint8)


def noisy(images: Tensor, deviation: float = NOISE, seed: int = 0) -> Tensor:
    """(N, C, H, W) uint8 with Gaussian noise, another one in every image: a new camera."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator) * deviation * 255
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


def jpeg(images: Tensor, quality: int = QUALITY) -> Tensor:
    """(N, 1 or 3, H, W) uint8, compressed and read back: a thriftier camera."""
    return torch.stack([_compressed(image, quality) for image in images])


def _compressed(image: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if len(image) == 1 else pixels).save(buffer, "JPEG", quality=quality)
    read = np.asarray(Image.open(buffer)).reshape(pixels.shape)
    return torch.from_numpy(read.copy()).permute(2, 0, 1)


SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    f"light × {DUSK}": darker,
    f"light × {NIGHT}": partial(darker, factor=NIGHT),
    f"noise of {NOISE}": noisy,
    f"JPEG at {QUALITY}": jpeg,
}
