"""Fixed fields and kernels that the corruptions are made of, on the CPU, from seeds.

Everything random about a corruption depends on the image's shape alone: the same image is corrupted the
same way whenever it comes and whatever comes with it.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "area_weights",
    "bell",
    "disk",
    "elastic_grid",
    "frost_texture",
    "motion_kernel",
    "normal",
    "plasma",
    "shuffle_order",
    "smooth",
    "uniform",
    "zoom",
]


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def bell(sigma: float, radius: int) -> Tensor:
    """(2 · radius + 1,): a Gaussian of standard deviation `sigma` pixels that sums to one."""
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-3)) ** 2)
    return line / line.sum()


def disk(radius: float, alias: float) -> Tensor:
    """(odd, odd): an out-of-focus point, a disk whose rim is softened by a 3×3 Gaussian of `alias` pixels."""
    reach = math.ceil(radius) + 1
    steps = torch.arange(-reach, reach + 1.0)
    kernel = ((steps[:, None] ** 2 + steps[None, :] ** 2) <= radius**2).float()
    line = bell(alias, 1)
    soft = F.conv2d(
        (kernel / kernel.sum())[None, None], (line[:, None] * line[None, :])[None, None], padding=1
    )
    return soft[0, 0] / soft.sum()


def motion_kernel(radius: int, sigma: float, degrees: float) -> Tensor:
    """(2 · radius + 1)²: a trail from the middle outwards that fades like half a Gaussian."""
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1)
    angle = math.radians(degrees)
    for step in range(radius + 1):
        row, column = radius + round(step * math.sin(angle)), radius + round(step * math.cos(angle))
        kernel[row, column] += math.exp(-0.5 * (step / sigma) ** 2)
    return kernel / kernel.sum()


def smooth(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of (B, C, H, W) under `kernel` (odd, odd), edges repeated; the same shape."""
    channels = images.shape[1]
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = F.pad(images, (columns, columns, rows, rows), mode="replicate")
    kernel = kernel.to(images.device, images.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(padded, kernel, groups=channels)


def zoom(images: Tensor, factor: float) -> Tensor:
    """The middle of (B, C, H, W) enlarged by `factor` ≥ 1, bilinear."""
    scaling = torch.tensor([[[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]]], device=images.device)
    grid = F.affine_grid(scaling, [1, 1, *images.shape[-2:]], align_corners=False).to(images.dtype)
    grid = grid.expand(len(images), *grid.shape[1:])
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def plasma(size: tuple[int, int], decay: float, seed: int) -> Tensor:
    """(H, W) in [0, 1]: a cloud by the diamond-square algorithm; it roughens by decay² less at each level."""
    side = 1 << max(1, math.ceil(math.log2(max(size))))
    numbers = np.random.default_rng(seed)
    cloud = np.zeros((side, side))
    step, wildness = side, 1.0

    def jitter(means: np.ndarray) -> np.ndarray:
        return means / 4 + wildness * numbers.uniform(-1, 1, means.shape)

    while step > 1:
        half = step // 2
        corners = cloud[::step, ::step]
        right = corners + np.roll(corners, -1, 0)
        cloud[half::step, half::step] = jitter(right + np.roll(right, -1, 1))
        middles = cloud[half::step, half::step]
        cloud[::step, half::step] = jitter(
            middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        )
        cloud[half::step, ::step] = jitter(
            middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        )
        step, wildness = half, wildness / decay**2
    cloud -= cloud.min()
    return torch.from_numpy(cloud / max(cloud.max(), 1e-12)).float()[: size[0], : size[1]]


def frost_texture(size: tuple[int, int], seed: int) -> Tensor:
    """(H, W) in [0, 1]: bright veins on a dim ground, standing in for the photographs of frost."""
    veins = 1 - (2 * plasma(size, 1.6, seed) - 1).abs()
    return 0.35 + 0.65 * veins**4 * (0.5 + 0.5 * plasma(size, 2.0, seed + 1))


def shuffle_order(size: tuple[int, int], reach: int, times: int, seed: int) -> Tensor:
    """(H · W,) int64: which pixel lies where after neighbours changed places, one after the other."""
    height, width = size
    order = np.arange(height * width).reshape(height, width)
    numbers = np.random.default_rng(seed)
    for _ in range(times):
        for row in range(height - reach - 1, reach - 1, -1):
            for column in range(width - reach - 1, reach - 1, -1):
                down, right = numbers.integers(-reach, reach + 1, 2)
                there = row + down, column + right
                order[row, column], order[there] = order[there], order[row, column]
    return torch.from_numpy(order.ravel())


def elastic_grid(size: tuple[int, int], strength: float, sigma: float, affine: float, seed: int) -> Tensor:
    """(1, H, W, 2) for `grid_sample`: three points displaced by up to `affine` pixels, which fix an affine
    map, then a random field smoothed over `sigma` pixels and multiplied by `strength` pixels."""
    height, width = size
    middle = np.array([width, height]) / 2
    third = min(size) // 3
    points = middle + third * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    moved = points + np.random.default_rng(seed).uniform(-affine, affine, points.shape)
    ones = np.ones((3, 1))
    matrix = torch.from_numpy(np.linalg.solve(np.hstack([moved, ones]), points)).float()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], -1).float() @ matrix
    field = 2 * uniform((1, 2, height, width), seed + 1) - 1
    if sigma > 0:
        line = bell(sigma, max(1, math.ceil(3 * sigma)))
        field = smooth(smooth(field, line[:, None]), line[None, :])
    places = places + strength * field[0].permute(1, 2, 0)
    return ((2 * places + 1) / torch.tensor([width, height]) - 1)[None]


def area_weights(long: int, short: int) -> Tensor:
    """(short, long): the matrix that shrinks a line of pixels by averaging over area."""
    edges = torch.arange(short + 1) * (long / short)
    pixels = torch.arange(long)
    overlap = torch.minimum(edges[1:, None], pixels + 1.0) - torch.maximum(edges[:-1, None], pixels + 0.0)
    return overlap.clamp(min=0) * (short / long)
