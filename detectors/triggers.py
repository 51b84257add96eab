"""Three kinds of trigger for the power probe: something added, something mixed in, something moved.

They stand for the families that attacks come from (BadNets, Gu et al., 2017; Blend, Chen et al., 2017;
WaNet, Nguyen and Tran, 2021), and are drawn from a seed: a probe that used an attack's own pattern would
show how a detector does against that pattern.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["TRIGGERS", "Trigger", "blend", "patch", "warp"]

Trigger = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] → new, triggered images of the same shape and range."""

PATCH_SHARE = 1 / 8  # of the shorter side
OPACITY = 0.2
GRID = 4  # control points of the warp along either axis
SHIFT = 1.0  # mean displacement of a control point, in 32nds of the side: a fainter warp takes long to learn


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patch(shape: Sequence[int], seed: int) -> Trigger:
    """A square of random black and white samples, an eighth of the side, somewhere along the border, for
    images of `shape` (C, H, W)."""
    channels, height, width = shape
    side = max(2, round(min(height, width) * PATCH_SHARE))
    generator = _generator(seed)
    pattern = torch.randint(0, 2, (channels, side, side), generator=generator).float()
    pattern[:, 0, 0], pattern[:, -1, -1] = 1, 0  # never all of one colour
    bottom, right = (bool(bit) for bit in torch.randint(0, 2, (2,), generator=generator))
    rows = slice(height - side - 1, height - 1) if bottom else slice(1, 1 + side)
    columns = slice(width - side - 1, width - 1) if right else slice(1, 1 + side)

    def apply(images: Tensor) -> Tensor:
        stamped = images.clone()
        stamped[..., rows, columns] = pattern.to(images)
        return stamped

    return apply


def blend(shape: Sequence[int], seed: int) -> Trigger:
    """0.8 · image + 0.2 · noise, one pattern of uniform noise for all images of `shape` (C, H, W)."""
    pattern = torch.rand(*shape, generator=_generator(seed))
    return lambda images: (1 - OPACITY) * images + OPACITY * pattern.to(images)


def warp(shape: Sequence[int], seed: int) -> Trigger:
    """A smooth random displacement of the pixels of images of `shape` (C, H, W), the same for all."""
    _, height, width = shape
    control = torch.rand(1, 2, GRID, GRID, generator=_generator(seed)) * 2 - 1
    control = control / control.abs().mean()
    flow = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
    still = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=True)
    grid = (still + (SHIFT / 16 * flow).movedim(1, -1)).clamp(-1, 1)

    def apply(images: Tensor) -> Tensor:
        where = grid.to(images).expand(len(images), -1, -1, -1)
        moved = F.grid_sample(images, where, mode="bilinear", padding_mode="border", align_corners=True)
        return moved.clamp(0, 1)

    return apply


TRIGGERS: Mapping[str, Callable[[Sequence[int], int], Trigger]] = {
    "patch": patch,
    "blend": blend,
    "warp": warp,
}
