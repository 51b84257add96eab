"""An image as it is kept: its bytes, their digest, and what kind of image they are."""

import hashlib
import io

import numpy as np
from PIL import Image

from app.images import Pixels

__all__ = ["as_file", "digest", "media_type"]

KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"BM", "image/bmp"),
    (b"GIF8", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"P5", "image/x-portable-graymap"),
    (b"P6", "image/x-portable-pixmap"),
)


def digest(image: bytes | Pixels) -> str:
    """SHA-256 in hexadecimal, of the bytes as received; of pixels that came as a tensor, that of their 8-bit
    values in the order (C, H, W)."""
    return hashlib.sha256(image if isinstance(image, bytes) else _eight_bit(image).tobytes()).hexdigest()


def as_file(image: bytes | Pixels) -> bytes:
    """The bytes as received; pixels (C, H, W) in [0, 1] that came as a tensor become an 8-bit PNG."""
    if isinstance(image, bytes):
        return image
    values = _eight_bit(image)
    picture = Image.fromarray(
        values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))
    )
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def media_type(data: bytes) -> str:
    """By its first bytes alone: what a client calls it does not count."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] == b"ftypavif":
        return "image/avif"
    return next((kind for start, kind in KINDS if data.startswith(start)), "application/octet-stream")


def _eight_bit(pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return (pixels * 255).round().clip(0, 255).astype(np.uint8)
