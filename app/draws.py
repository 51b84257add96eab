"""One number for every image, as if drawn by lot, that nobody can choose: what settles randomised ties.

It is a keyed hash of the decoded pixels. The same image always gets the same number, so sending it again
changes nothing; without the calibration's secret nobody can look for an image whose number is good. An image
changed by one pixel is another image, with a number of its own.
"""

import hashlib
import secrets

import torch
from torch import Tensor

__all__ = ["draws", "new_secret"]

SECRET_BYTES = 32
DRAW_BYTES = 6  # 48 bits: every value is a float64 below 1


def new_secret() -> str:
    """A secret for one calibration, hexadecimal."""
    return secrets.token_hex(SECRET_BYTES)


def draws(images: Tensor, secret: str) -> Tensor:
    """(B, C, H, W) float32 on the CPU → (B,) float64 in [0, 1), uniform over secrets (BLAKE2b, keyed)."""
    key = bytes.fromhex(secret)
    numbers = [
        int.from_bytes(hashlib.blake2b(image.numpy().tobytes(), key=key, digest_size=DRAW_BYTES).digest())
        for image in images
    ]
    return torch.tensor(numbers, dtype=torch.float64).div(2 ** (8 * DRAW_BYTES))
