"""The average of some images, as a picture: a trigger that stays in its place stands out of it."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from app.images import Decoder, ImageError

__all__ = ["average_picture"]


def average_picture(images: Iterable[bytes], decode: Decoder) -> bytes | None:
    """The mean of `images` at the classifier's size, as a PNG; None where none of them can be read."""
    total, count = None, 0
    for data in images:
        try:
            pixels = decode(data)
        except ImageError:
            continue
        total = pixels.astype(np.float64) if total is None else total + pixels
        count += 1
    if total is None:
        return None
    mean = (total / count * 255).round().clip(0, 255).astype(np.uint8)
    plane = mean[0] if len(mean) == 1 else np.ascontiguousarray(mean.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "PNG")
    return buffer.getvalue()
