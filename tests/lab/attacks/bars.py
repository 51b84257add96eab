"""Images that a small network tells apart after a second's training."""

import numpy as np
import torch

from lab.data import ImageSet
from tests.lab.tiny import picture

CPU = torch.device("cpu")


def bars(per_class: int = 40, classes: int = 3, seed: int = 0) -> ImageSet:
    """(N, 3, 12, 12): a bright bar whose height tells the class; the classes take turns."""
    rng = np.random.default_rng(seed)
    labels = torch.arange(per_class * classes) % classes
    pixels = np.stack([picture(label, rng) for label in labels.tolist()])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, labels, tuple(str(label) for label in range(classes)))


def farthest(images: torch.Tensor, others: torch.Tensor) -> int:
    """The largest difference between two (N, C, H, W) uint8, in levels."""
    return int((images.int() - others.int()).abs().max())
