"""The fifteen common corruptions at five severities (Hendrycks and Dietterich, ICLR 2019, arXiv:1903.12261).

Noise, blur, weather and digital damage, as that paper's section 3 defines them, with the strengths that
its authors chose for 32×32 images (CIFAR-10-C). Lengths are in pixels of such images; larger images are
damaged less. Everything runs on the images' device, in batches, and every random choice is drawn once
from a seed: an image is always corrupted in the same way. Where this is not the original:

* frost: the photographs of frost are replaced by a synthetic texture of bright veins;
* shot noise: Poisson by its normal approximation (50 photons and more a pixel);
* JPEG: quantisation without the file, see `jpeg`;
* motion blur and elastic transform: one fixed direction and field per severity.
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from detectors import patterns
from detectors.copies import Change
from detectors.jpeg import jpeg

__all__ = ["CORRUPTIONS", "SEVERITIES", "corruption"]

SEVERITIES = 5
SEED = 1903_12261
GREY = (0.299, 0.587, 0.114)


@lru_cache(maxsize=1024)
def fixed(make: Callable[..., Tensor], device: torch.device, *arguments: Hashable) -> Tensor:
    """`make(*arguments)` on `device`, made once."""
    return make(*arguments).to(device)


def size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


# --- noise ----------------------------------------------------------------------------------------


def gaussian_noise(images: Tensor, severity: int) -> Tensor:
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return images + scale * fixed(patterns.normal, images.device, tuple(images.shape[1:]), SEED)


def shot_noise(images: Tensor, severity: int) -> Tensor:
    photons = (500, 250, 100, 75, 50)[severity - 1]
    noise = fixed(patterns.normal, images.device, tuple(images.shape[1:]), SEED + 1)
    return images + (images / photons).sqrt() * noise


def impulse_noise(images: Tensor, severity: int) -> Tensor:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    chance = fixed(patterns.uniform, images.device, tuple(images.shape[1:]), SEED + 2)
    return images.masked_fill(chance < share / 2, 0.0).masked_fill(chance >= 1 - share / 2, 1.0)


# --- blur -----------------------------------------------------------------------------------------


def defocus_blur(images: Tensor, severity: int) -> Tensor:
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    return patterns.smooth(images, fixed(patterns.disk, images.device, radius, alias))


def glass_blur(images: Tensor, severity: int) -> Tensor:
    """Blurred, neighbours exchanged, blurred again."""
    sigma, times = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))[severity - 1]
    line = fixed(patterns.bell, images.device, sigma, 2)
    order = fixed(patterns.shuffle_order, images.device, size(images), 1, times, SEED + 3)

    def blurred(of: Tensor) -> Tensor:
        return patterns.smooth(patterns.smooth(of, line[:, None]), line[None, :])

    return blurred(blurred(images).flatten(2)[..., order].view_as(images))


def motion_blur(images: Tensor, severity: int) -> Tensor:
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[severity - 1]
    return patterns.smooth(images, fixed(patterns.motion_kernel, images.device, radius, sigma, 30.0))


def zoom_blur(images: Tensor, severity: int) -> Tensor:
    """The mean of the image and of its enlargements by 1, 1.01, … up to the strength."""
    steps = (6, 11, 16, 21, 26)[severity - 1]
    return sum((patterns.zoom(images, 1 + 0.01 * step) for step in range(steps)), images) / (steps + 1)


# --- weather --------------------------------------------------------------------------------------


def snow(images: Tensor, severity: int) -> Tensor:
    """Flakes that fall in two directions, on an image that is whitened."""
    mean, deviation, enlargement, least, radius, sigma, keep = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]  # fmt: skip
    flakes = mean + deviation * fixed(patterns.normal, images.device, (1, 1, *size(images)), SEED + 4)
    flakes = patterns.zoom(flakes, enlargement)
    flakes = flakes.masked_fill(flakes < least, 0.0).clamp(0, 1)
    flakes = patterns.smooth(flakes, fixed(patterns.motion_kernel, images.device, radius, sigma, 80.0))
    white = keep * images + (1 - keep) * torch.maximum(images, grey(images) * 1.5 + 0.5)
    return white + flakes + flakes.rot90(2, (-2, -1))


def frost(images: Tensor, severity: int) -> Tensor:
    keep, share = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    return keep * images + share * fixed(patterns.frost_texture, images.device, size(images), SEED + 5)


def fog(images: Tensor, severity: int) -> Tensor:
    """A cloud is added, and the whole scaled back to the brightness the image had."""
    strength, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    brightest = images.amax((1, 2, 3), keepdim=True)
    cloud = fixed(patterns.plasma, images.device, size(images), decay, SEED + 6)
    return (images + strength * cloud) * brightest / (brightest + strength)


def brightness(images: Tensor, severity: int) -> Tensor:
    """The value of hue, saturation and value is raised: a common factor for the channels of a pixel."""
    more = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = images.amax(1, keepdim=True)
    raised = (value + more).clamp(max=1)
    return torch.where(value > 0, images * raised / value.clamp(min=1e-6), raised)


# --- digital --------------------------------------------------------------------------------------


def contrast(images: Tensor, severity: int) -> Tensor:
    keep = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.mean((2, 3), keepdim=True)
    return means + keep * (images - means)


def elastic_transform(images: Tensor, severity: int) -> Tensor:
    """Strength, smoothness and affine displacement as shares of the shorter side."""
    shares = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    strength, sigma, affine = (share * min(size(images)) for share in shares[severity - 1])
    grid = fixed(patterns.elastic_grid, images.device, size(images), strength, sigma, affine, SEED + 7)
    grid = grid.to(images.dtype).expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def pixelate(images: Tensor, severity: int) -> Tensor:
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = size(images)
    rows = fixed(patterns.area_weights, images.device, height, max(1, int(height * share)))
    columns = fixed(patterns.area_weights, images.device, width, max(1, int(width * share)))
    return F.interpolate(rows @ images @ columns.T, (height, width), mode="nearest-exact")


def jpeg_compression(images: Tensor, severity: int) -> Tensor:
    return jpeg(images, (80, 65, 58, 50, 40)[severity - 1])


def grey(images: Tensor) -> Tensor:
    """(B, 1, H, W): the luma of colour images, the mean of others."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = fixed(torch.tensor, images.device, GREY).to(images.dtype)
    return (images * weights[:, None, None]).sum(1, keepdim=True)


CORRUPTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    each.__name__: each
    for each in (
        gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow,
        frost, fog, brightness, contrast, elastic_transform, pixelate, jpeg_compression,
    )
}  # fmt: skip


def corruption(name: str, severity: int) -> Change:
    """The change of images (B, C, H, W) in [0, 1] named `name` at `severity` in 1..5; keeps the range.

    It is made from the images given, never from an image that was already corrupted less.
    """
    return partial(_corrupted, name=name, severity=severity)


def _corrupted(images: Tensor, name: str, severity: int) -> Tensor:
    return CORRUPTIONS[name](images, severity).clamp(0, 1)
