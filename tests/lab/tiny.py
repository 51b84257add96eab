"""A network and images small enough to train in a test."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

TINY_CNN = f"{__name__}:tiny_cnn"
SIDE = 12


def tiny_cnn(num_classes: int) -> nn.Module:
    """One convolution, and dropout so that the random state between steps matters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.MaxPool2d(3), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8 * 16, num_classes),
    )  # fmt: skip


def two_headed(num_classes: int) -> nn.Module:
    """Returns a pair while it trains, as networks with auxiliary heads do."""
    return TwoHeaded(num_classes)


class TwoHeaded(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x):  # type: ignore[no-untyped-def]
        logits = self.fc(x.mean((2, 3)))
        return (logits, logits) if self.training else logits


def picture(label: int, rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: noise with a bright bar whose height tells the class."""
    pixels = rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[3 * label : 3 * label + 3] += 130
    return pixels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_images(path: Path, per_class: int = 100, classes: int = 3) -> Path:
    """A zip of `per_class` training and a fifth as many test images of each class."""
    rng = np.random.default_rng(0)
    counts = {"train": per_class, "test": per_class // 5}
    return write_zip(
        path,
        {
            f"{split}/{label}/{i}.png": png(picture(label, rng))
            for split, count in counts.items()
            for label in range(classes)
            for i in range(count)
        },
    )
