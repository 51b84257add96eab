"""What JPEG compression does to an image, without a file: transform, quantise, transform back.

The loss of JPEG (ITU-T T.81) lies in the quantisation of 8×8 cosine transforms and in the halved colour
planes; the entropy coding after it loses nothing and is left out. Stays on the device.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["cosine_basis", "jpeg", "quantisation"]

# T.81, tables K.1 and K.2.
LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@lru_cache(maxsize=64)
def cosine_basis(size: int, device: torch.device) -> Tensor:
    """(size, size): the orthonormal DCT-II; row u is the u-th cosine."""
    places = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi * (2 * places[None, :] + 1) * places[:, None] / (2 * size))
    basis *= math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float().to(device)


@lru_cache(maxsize=64)
def quantisation(quality: int, colour: bool, device: torch.device) -> Tensor:
    """(8, 8): the step of each coefficient at `quality` in 1..100, as the reference encoder scales it."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = torch.tensor(CHROMINANCE if colour else LUMINANCE)
    return ((table * percent + 50) // 100).clamp(1, 255).float().to(device)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Images (B, C, H, W) in [0, 1] as they come out of JPEG; C other than 3 counts as grey planes."""
    height, width = images.shape[-2:]
    padded = F.pad(images * 255, (0, -width % 16, 0, -height % 16), mode="replicate")
    if images.shape[1] != 3:
        planes = _quantised(padded - 128, quality, colour=False) + 128
    else:
        matrix = torch.tensor(TO_YCC, device=images.device, dtype=images.dtype)
        colours = torch.einsum("ij,bjhw->bihw", matrix, padded)
        luma = _quantised(colours[:, :1] - 128, quality, colour=False) + 128
        chroma = _quantised(F.avg_pool2d(colours[:, 1:], 2), quality, colour=True)
        chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
        planes = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(matrix), torch.cat([luma, chroma], 1))
    return (planes[..., :height, :width].clamp(0, 255).round() / 255).to(images.dtype)


def _quantised(planes: Tensor, quality: int, *, colour: bool) -> Tensor:
    """Planes (B, C, H, W) around 0, their 8×8 blocks rounded to multiples of the quantisation steps."""
    batch, channels, height, width = planes.shape
    basis, steps = cosine_basis(8, planes.device), quantisation(quality, colour, planes.device)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = ((basis @ blocks @ basis.T) / steps).round() * steps
    return (basis.T @ coefficients @ basis).transpose(3, 4).reshape(planes.shape)
