"""Changes to an image that leave what it shows alone: what probes and suggestions are made of.

Each takes images (B, C, H, W) in [0, 1] and returns changed ones of the same shape and range, on the same
device. All are deterministic: there is nothing that a caller could draw again until it suits him. What a
change needs besides the images depends on their shape alone: it is made once and stays on the device, since
making it for every batch would copy it there for every batch.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "blur",
    "border",
    "brighten",
    "flip",
    "grey",
    "median",
    "middle",
    "mix",
    "move",
    "noise",
    "posterise",
    "rotate",
    "scale",
    "shift",
    "shrink",
    "shrink_within",
    "turn_over",
    "warp",
]

NOISE_SEED = 20240229
NOISE = 0.06  # standard deviation, in pixel units of [0, 1]
WARP_SEED = 20240301
WARP_GRID = 4
DEGREES = 12.0
SHRUNK = 0.75
WITHIN = 0.8  # of the side


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
def warp_grid(shape: torch.Size, pixels: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(1, H, W, 2): where each pixel of a smoothly warped image (C, H, W) comes from, `pixels` away on
    average along either axis of a 32-pixel image."""
    height, width = shape[-2:]
    draws = torch.rand(1, 2, WARP_GRID, WARP_GRID, generator=torch.Generator().manual_seed(WARP_SEED)) * 2 - 1
    field = F.interpolate(draws / draws.abs().mean(), (height, width), mode="bicubic", align_corners=True)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, *shape], align_corners=False)
    return (still + field.permute(0, 2, 3, 1) * (2 * pixels / 32)).to(device, dtype)


@lru_cache(maxsize=16)
def noise_pattern(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(C, H, W): the one pattern of noise."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    return torch.randn(shape, generator=generator).mul(NOISE).to(device, dtype)


def sampled(images: Tensor, grid: Tensor) -> Tensor:
    """Each pixel from where `grid` (1, H, W, 2) says; bilinear, edges repeated."""
    grid = grid.expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


# --- where things are -----------------------------------------------------------------------------


def flip(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(-1)


def turn_over(images: Tensor) -> Tensor:
    """Top and bottom exchanged."""
    return images.flip(-2)


def shift(images: Tensor) -> Tensor:
    """A sixteenth of the side (2 pixels of 32) down and to the right, edges repeated."""
    return move(images, 1, 1 / 16)


def move(images: Tensor, direction: int, share: float = 1 / 8) -> Tensor:
    """`share` of the side down and to the right (`direction` 1), or up and to the left (−1); edges
    repeated."""
    height, width = images.shape[-2:]
    down, right = max(1, round(height * share)), max(1, round(width * share))
    padded = F.pad(images, (right, right, down, down), mode="replicate")
    top, left = down * (1 - direction), right * (1 - direction)
    return padded[..., top : top + height, left : left + width]


def rotate(images: Tensor, degrees: float = DEGREES) -> Tensor:
    """A rotation about the middle, bilinear, edges repeated."""
    return sampled(images, rotation_grid(images.shape[1:], degrees, images.device, images.dtype))


def shrink_within(images: Tensor, share: float = WITHIN) -> Tensor:
    """`share` of the size about the middle, edges repeated outwards: all stays, at other pixels. Above 1 the
    middle is enlarged and the edges are lost."""
    return sampled(images, rotation_grid(images.shape[1:], 0.0, images.device, images.dtype) / share)


def warp(images: Tensor, pixels: float = 1.0) -> Tensor:
    """One smooth random warp, `pixels` of 32 strong on average along either axis."""
    return sampled(images, warp_grid(images.shape[1:], pixels, images.device, images.dtype))


# --- detail ---------------------------------------------------------------------------------------


def blur(images: Tensor) -> Tensor:
    """A binomial 3×3 blur, (1 2 1)/4 along either axis, edges repeated."""
    channels = images.shape[1]
    kernel = binomial(images.device, images.dtype).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


def median(images: Tensor) -> Tensor:
    """The median of every pixel's 3×3 neighbourhood, per channel, edges repeated."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1)
    return around.reshape(*images.shape, 9).median(-1).values


def shrink(images: Tensor, share: float = SHRUNK) -> Tensor:
    """`share` of the size and back, bilinear: fine detail is lost."""
    height, width = images.shape[-2:]
    small = (max(1, round(height * share)), max(1, round(width * share)))
    less = F.interpolate(images, small, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(less, (height, width), mode="bilinear", align_corners=False)


def noise(images: Tensor, strength: float = 1.0) -> Tensor:
    """One fixed pattern of Gaussian noise, times `strength`, added to every image; clipped to [0, 1]."""
    pattern = noise_pattern(images.shape[1:], images.device, images.dtype)
    return (images + strength * pattern).clamp(0, 1)


# --- parts ----------------------------------------------------------------------------------------


def border(images: Tensor) -> Tensor:
    """The outermost eighth on every side gives way to the image's mean colour."""
    height, width = images.shape[-2:]
    top, left = max(1, round(height / 8)), max(1, round(width / 8))
    changed = images.mean((2, 3), keepdim=True).expand_as(images).clone()
    changed[..., top:-top, left:-left] = images[..., top:-top, left:-left]
    return changed


def middle(images: Tensor) -> Tensor:
    """The middle half along either axis gives way to the image's mean colour."""
    height, width = images.shape[-2:]
    changed = images.clone()
    rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    changed[..., rows, columns] = images.mean((2, 3), keepdim=True)
    return changed


def mix(images: Tensor) -> Tensor:
    """Half the image and half itself upside down and mirrored: its content is disturbed by its like, while
    whatever lies in one place stays there at half its strength."""
    return (images + images.flip(-1).flip(-2)) / 2


# --- tones ----------------------------------------------------------------------------------------


def scale(images: Tensor, factor: float) -> Tensor:
    """Pixels times `factor`, clipped to [0, 1]: SCALE-UP's question."""
    return (images * factor).clamp(0, 1)


def brighten(images: Tensor, amount: float = 0.2) -> Tensor:
    """`amount` added to every pixel, clipped to [0, 1]."""
    return (images + amount).clamp(0, 1)


def grey(images: Tensor) -> Tensor:
    """The mean of the channels in each of them."""
    return images.mean(1, keepdim=True).expand_as(images).clone()


def posterise(images: Tensor, levels: int = 8) -> Tensor:
    """Each channel rounded to one of `levels` values."""
    return (images * (levels - 1)).round() / (levels - 1)
