"""What a training batch sees: shuffled, randomly cropped, randomly mirrored."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.data import ImageSet
from lab.settings import TrainSettings

__all__ = ["augment", "batches"]


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


def batches(
    data: ImageSet, settings: TrainSettings, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented images (B, C, H, W), float32 in [0, 1], with labels (B,).

    The remainder that fills no batch is dropped: BatchNorm learns badly from a few images.
    """
    order = torch.randperm(len(data), generator=generator)
    for start in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
        index = order[start : start + settings.batch_size]
        images = augment(data.images[index], settings.crop_padding, settings.flip, generator)
        yield images.float() / 255, data.labels[index]
