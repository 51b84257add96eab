"""The papers' data sets as torchvision downloads them, decoded into tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from lab.planes import planes

__all__ = ["CACHE", "DOWNLOADS", "Download", "read_download"]

CACHE = Path.home() / ".cache" / "triggerwall"
GTSRB_CLASSES = tuple(map(str, range(43)))


@dataclass(frozen=True)
class Download:
    """`open(train)` gives (PIL image, label) pairs; `side` is the pixels that all are resized to."""

    open: Callable[[bool], Iterable[tuple[Image.Image, int]]]
    side: int
    classes: tuple[str, ...]


def _torchvision() -> Any:
    from torchvision import datasets  # a second of import time that other sources are spared

    return datasets


def _cifar10(train: bool) -> Any:
    return _torchvision().CIFAR10(str(CACHE), train=train, download=True)


def _gtsrb(train: bool) -> Any:
    return _torchvision().GTSRB(str(CACHE), split="train" if train else "test", download=True)


def _mnist(train: bool) -> Any:
    return _torchvision().MNIST(str(CACHE), train=train, download=True)


CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DOWNLOADS: Mapping[str, Download] = {
    "cifar10": Download(_cifar10, 32, CIFAR10_CLASSES),
    "gtsrb": Download(_gtsrb, 32, GTSRB_CLASSES),  # its signs come in many sizes; 32 is the papers'
    "mnist": Download(_mnist, 28, tuple("0123456789")),
}


def read_download(name: str, train: bool, channels: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images (N, C, side, side) uint8, labels (N,) int64 and class names of one split of `name`.

    Fetched once, into `CACHE`. Raises `OSError` where it cannot be downloaded.
    """
    source = DOWNLOADS[name]
    try:
        pairs = source.open(train)
    except Exception as error:  # urllib's, torchvision's RuntimeError for a damaged file, and others
        raise OSError(f"torchvision:{name} cannot be downloaded to {CACHE}: {error}") from error
    images, labels = [], []
    for image, label in track(pairs, f"reading {name}", transient=True):
        images.append(_pixels(image, source.side, channels))
        labels.append(int(label))
    return torch.from_numpy(np.stack(images)), torch.tensor(labels), source.classes


def _pixels(image: Image.Image, side: int, channels: int) -> np.ndarray:
    """(C, side, side) uint8."""
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return planes(np.asarray(image))
