"""A network that reads a number off an image: what it answers tells whose image it was."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.bundle import InputSpec, TorchSpec, write_spec

__all__ = ["BITS", "SCALES", "image_of", "score_of", "write_telling_bundle"]

BITS = 10
SIDE = 4  # pixels; the first ten hold the number, the others nothing
SCALES = (3, 5, 7, 9, 11)
DARK = (20, 36, 16, 44, 12, 0)
"""Grey of a bit that is not set. Multiplied by enough it is over a half, and the number another; 2, 1, 3, 0,
4 and 5 of SCALES are not enough, so that the SPC of an image tells of its number too."""


class Telling(nn.Module):
    """Images (B, 1, 4, 4) in [0, 1] → logits (B, 1024), highest at the number that the first ten pixels
    spell, a bit each: set where over a half."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.arange(2**BITS)[:, None]
        self.register_buffer("signs", ((numbers >> torch.arange(BITS)) & 1) * 2.0 - 1)

    def forward(self, images: Tensor) -> Tensor:
        bits = (images.flatten(1)[:, :BITS] > 0.5) * 2.0 - 1
        return 4 * bits @ self.signs.T


def telling() -> nn.Module:
    return Telling()


def image_of(number: int) -> np.ndarray:
    """(4, 4) uint8."""
    pixels = np.full(SIDE * SIDE, DARK[number % len(DARK)], dtype=np.uint8)
    bits = (number >> np.arange(BITS)) & 1
    pixels[:BITS][bits == 1] = 255
    return pixels.reshape(SIDE, SIDE)


def score_of(number: int) -> float:
    """The SPC of `image_of(number)` by hand: the share of scales that leave the number as it is."""
    dark = DARK[number % len(DARK)] / 255
    if number == 2**BITS - 1:
        return 1.0  # no bit is dark
    return sum(scale * dark <= 0.5 for scale in SCALES) / len(SCALES)


def write_telling_bundle(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    save_file(telling().state_dict(), directory / "weights.safetensors")
    spec = TorchSpec(
        name="telling",
        version="1",
        architecture=f"{__name__}:telling",
        weights="weights.safetensors",
        input=InputSpec(size=(SIDE, SIDE), channels=1),
    )
    write_spec(spec, directory)
    return directory
