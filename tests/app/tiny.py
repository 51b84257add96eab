"""A tiny classifier with BatchNorm layers, as a bundle on disk, and images for it."""

import io
import os
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from models.bundle import InputSpec, TorchSpec, write_spec

SIZE = 8
CLASSES = ("dot", "line", "ring", "cross")


def tiny(num_classes: int = 4, channels: int = 1) -> nn.Module:
    """Images (B, channels, 8, 8) → logits; three BatchNorm layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in [(channels, 4), (4, 6), (6, 8)]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * SIZE * SIZE, num_classes))


class Mood(Enum):
    """What an image can make `moody` do. It says so in its first row of pixels, as bits."""

    RAISE = 1  # an exception
    NO_MEMORY = 2  # an exception for lack of memory
    NO_CROWD = 3  # the same, only where more than CROWD images are in the batch
    NAN = 4  # logits of its own that are not numbers
    EXIT = 5  # SystemExit
    STUCK = 6  # not returning for STUCK_S seconds
    DETECTOR_RAISES = 7  # nothing; these are for detectors that look for them
    DETECTOR_NAN = 8
    DETECTOR_SLOW = 9


CROWD, STUCK_S = 3, float(os.environ.get("MOODY_STUCK_S", 3))


class Moody(nn.Sequential):
    """As `tiny`, and as each image's `Mood` says."""

    def forward(self, images: Tensor) -> Tensor:
        moods = [mood_of(image) for image in images]
        if Mood.STUCK in moods:
            time.sleep(STUCK_S)
        if Mood.EXIT in moods:
            raise SystemExit(3)
        if Mood.RAISE in moods:
            raise RuntimeError("bad mood\nINFO forged line")
        if Mood.NO_MEMORY in moods or (Mood.NO_CROWD in moods and len(images) > CROWD):
            raise torch.OutOfMemoryError("out of memory")
        logits: Tensor = super().forward(images)
        logits[[row for row, mood in enumerate(moods) if mood is Mood.NAN]] = float("nan")
        return logits


def moody(num_classes: int = 4, channels: int = 1) -> nn.Module:
    return Moody(*tiny(num_classes, channels))  # type: ignore[misc]


def in_mood(image: np.ndarray, mood: Mood) -> np.ndarray:
    """A copy of (8, 8) uint8 `image` with `mood` in its first row and its complement in the second: black
    and white survive every scale."""
    bits = [255 * (mood.value >> bit & 1) for bit in range(SIZE)]
    changed = image.copy()
    changed[0], changed[1] = bits, 255 - np.array(bits)
    return changed


def mood_of(image: Tensor) -> Mood | None:
    first, second = image[0, 0], image[0, 1]
    if not torch.equal(first + second, torch.ones(SIZE)) or not ((first == 0) | (first == 1)).all():
        return None
    value = sum(1 << bit for bit in range(SIZE) if first[bit] == 1)
    return Mood(value) if value in [mood.value for mood in Mood] else None


def write_bundle(
    directory: Path,
    *,
    seed: int = 0,
    labels: Sequence[str] | None = CLASSES,
    channels: int = 1,
    kind: str = "tiny",
) -> Path:
    """A bundle of `tiny` or `moody` (`kind`), whose weights depend on `seed`: random, but every image gets
    logits of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = {"tiny": tiny, "moody": moody}[kind](channels=channels)
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(256, channels, SIZE, SIZE))
        network[-1].weight.mul_(8)
    save_file(network.state_dict(), directory / "weights.safetensors")
    spec = TorchSpec(
        name="tiny",
        version=f"{seed}",
        architecture=f"{__name__}:{kind}",
        architecture_args={"num_classes": 4, "channels": channels},
        weights="weights.safetensors",
        labels=tuple(labels) if labels else None,
        input=InputSpec(size=(SIZE, SIZE), channels=channels),
    )
    write_spec(spec, directory)
    return directory


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """(count, 8, 8) uint8 noise, each image different."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE), dtype=np.uint8)


def encoded(image: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def pngs(count: int, seed: int = 0) -> list[bytes]:
    return [encoded(image) for image in pixels(count, seed)]


def form(
    images: Sequence[bytes], **fields: str | Sequence[str]
) -> list[tuple[str, tuple[str | None, object]]]:
    """A multipart form, for httpx's `files`: `images` parts, then text fields, repeated where a list."""
    parts: list[tuple[str, tuple[str | None, object]]] = [
        ("images", (f"{number}.png", data)) for number, data in enumerate(images)
    ]
    for name, value in fields.items():
        parts += [(name, (None, text)) for text in ([value] if isinstance(value, str) else value)]
    return parts
