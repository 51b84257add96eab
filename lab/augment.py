"""What is done to each training image each time it is seen: a random crop, a random mirroring."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["augment"]


def augment(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crop from the zero-padded image and random horizontal flip, drawn per image.

    Takes and returns (B, C, H, W) of any one type; `padding` in pixels on each side, 0 for no crop.
    """
    count, _, height, width = images.shape
    if padding:
        padded = F.pad(images, (padding,) * 4)
        top, left = torch.randint(0, 2 * padding + 1, (2, count, 1, 1), generator=generator)
        rows = top + torch.arange(height)[None, :, None]
        columns = left + torch.arange(width)[None, None, :]
        images = padded[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images
