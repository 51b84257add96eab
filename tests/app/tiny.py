"""A tiny classifier with BatchNorm layers, as a bundle on disk, and images for it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from models.bundle import InputSpec, TorchSpec, write_spec

SIZE = 8
CLASSES = ("dot", "line", "ring", "cross")


def tiny(num_classes: int = 4, channels: int = 1) -> nn.Module:
    """Images (B, channels, 8, 8) → logits; three BatchNorm layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in [(channels, 4), (4, 6), (6, 8)]:
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * SIZE * SIZE, num_classes))


def write_bundle(
    directory: Path, *, seed: int = 0, labels: Sequence[str] | None = CLASSES, channels: int = 1
) -> Path:
    """A bundle whose weights depend on `seed`: random, but every image gets logits of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = tiny(channels=channels)
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
        architecture=f"{__name__}:tiny",
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
