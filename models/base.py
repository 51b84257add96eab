"""What every wrapped classifier is to the rest of the system."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from models.errors import InputError
from models.layers import Layers

__all__ = ["AccessName", "Classifier", "ClassifierInfo", "check_images"]

AccessName = Literal["labels", "probabilities", "weights"]


@dataclass(frozen=True)
class ClassifierInfo:
    """The facts about a classifier that do not change while it is served."""

    name: str
    version: str
    digest: str  # sha256 over weights, architecture and preprocessing, hexadecimal
    architecture: str
    backend: str
    access: AccessName
    num_classes: int
    labels: tuple[str, ...] | None
    channels: int
    size: tuple[int, int]  # height, width
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    layers: Layers | None = None  # of a graph: its BatchNorms, also those folded into convolutions

    def name_of(self, label: int) -> str | None:
        """The name of class `label`, or None where the bundle names no classes."""
        return self.labels[label] if self.labels is not None else None


class Classifier(Protocol):
    """An image classifier behind one call, whatever runs it."""

    @property
    def info(self) -> ClassifierInfo: ...

    @property
    def device(self) -> torch.device:
        """Where `logits` wants its images."""
        ...

    @property
    def network(self) -> nn.Module | None:
        """Pixels in [0, 1] → logits, in eval mode; None where the weights are out of reach."""
        ...

    @property
    def num_classes(self) -> int: ...

    def logits(self, images: Tensor) -> Tensor:
        """Classify `images` (B, C, H, W), float32 in [0, 1], on `device`.

        Returns (B, num_classes) float32, defined up to a constant per row: softmax gives the
        probabilities. A classifier that gives labels only answers 0 at the label and -inf elsewhere.
        Raises `InputError` for another shape or type.
        """
        ...


def check_images(images: Tensor, info: ClassifierInfo) -> None:
    """Raise `InputError` unless `images` are what the classifier of `info` takes."""
    expected = (info.channels, *info.size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected or images.dtype != torch.float32:
        raise InputError(
            f"{info.name} takes torch.float32 of shape (B, {', '.join(map(str, expected))}), "
            f"not {images.dtype} of shape {tuple(images.shape)}"
        )
