"""The training set as the victim sees it, batch after batch, and what the attacker knows about each image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lab.attacks import Attack, Poisoned
from lab.augment import augment
from lab.data import ImageSet
from lab.settings import TrainSettings

__all__ = ["Batch", "TrainingSet"]


class Batch(NamedTuple):
    """`images` (B, C, H, W) float32 in [0, 1]; `labels` (B,) int64 as trained on; `truth` (B,) int64, the
    labels before poisoning; `triggered` (B,) bool: the image carries the trigger and is labelled `target`."""

    images: Tensor
    labels: Tensor
    truth: Tensor
    triggered: Tensor

    def to(self, device: torch.device) -> "Batch":
        """On `device`, the images with channels last."""
        images = self.images.to(device, memory_format=torch.channels_last)
        return Batch(images, self.labels.to(device), self.truth.to(device), self.triggered.to(device))


@dataclass(frozen=True)
class TrainingSet:
    """A clean or poisoned set of N images; `truth` (N,) and `triggered` (N,) as in `Batch`."""

    data: ImageSet
    truth: Tensor
    triggered: Tensor
    attack: Attack | None = None

    @classmethod
    def clean(cls, data: ImageSet) -> Self:
        return cls(data, data.labels, torch.zeros(len(data), dtype=torch.bool))

    @classmethod
    def poisoned(cls, clean: ImageSet, poisoned: Poisoned, attack: Attack) -> Self:
        """`poisoned` is what `attack` made of `clean`, in the same order."""
        triggered = torch.zeros(len(clean), dtype=torch.bool)
        triggered[poisoned.triggered] = True
        return cls(poisoned.data, clean.labels, triggered, attack)

    def epoch(self, settings: TrainSettings, generator: torch.Generator) -> Iterator[Batch]:
        """Every image once, shuffled and augmented, in batches of `settings.batch_size`.

        The remainder that fills no batch is dropped: BatchNorm learns badly from a few images.
        """
        order = torch.randperm(len(self.data), generator=generator)
        for start in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
            index = order[start : start + settings.batch_size]
            images, triggered = self.data.images[index], self.triggered[index]
            if self.attack is not None and triggered.any():
                images[triggered] = self.attack.online(images[triggered], generator)
            images = augment(images, settings.crop_padding, settings.flip, generator)
            yield Batch(images.float() / 255, self.data.labels[index], self.truth[index], triggered)
