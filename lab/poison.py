"""Poisoning a training set: the dirty-label setting of BadNets and Blend."""

import torch
from torch import Tensor

from lab.attacks import Attack
from lab.data import ImageSet

__all__ = ["poison"]


def poison(data: ImageSet, attack: Attack, target: int, rate: float, seed: int) -> tuple[ImageSet, Tensor]:
    """Stamp the trigger on a random `rate` of the images and relabel them `target`.

    `rate` in [0, 1] is rounded to whole images, drawn from all classes without replacement. Returns the
    poisoned set, in the same order, and the positions (M,) int64 of the poisoned images.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(data), generator=generator)[: round(rate * len(data))]
    images, labels = data.images.clone(), data.labels.clone()
    images[chosen] = attack.apply(data.images[chosen])
    labels[chosen] = target
    return ImageSet(images, labels, data.classes), chosen
