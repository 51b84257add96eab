"""Where a label comes from, as a picture: the image in grey, red where covering it takes the label away."""

import io

import numpy as np
from PIL import Image

from app.images import Pixels
from detectors.base import Floats

__all__ = ["heat_picture"]

SIDE = 256  # pixels, about
LEAST = 0.5  # log-odds: a map that nowhere reaches this shows nothing, and is not blown up into something
STRONGEST = 0.85  # how much of the red covers the image


def heat_picture(pixels: Pixels, sensitivity: Floats) -> bytes:
    """`pixels` (C, H, W) in [0, 1] under `sensitivity` (rows, columns) ≥ 0, as a PNG."""
    height, width = pixels.shape[1:]
    times = max(1, SIDE // max(height, width))
    size = (width * times, height * times)
    grey = Image.fromarray((pixels.mean(0) * 255).round().clip(0, 255).astype(np.uint8))
    plain = np.asarray(grey.resize(size, Image.Resampling.NEAREST), dtype=np.float64)[..., None]
    heat = sensitivity / max(LEAST, float(sensitivity.max(initial=0.0)))
    smooth = Image.fromarray((heat * 255).round().astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    red = np.asarray(smooth, dtype=np.float64)[..., None] / 255 * STRONGEST
    mixed = plain * (1 - red) + np.array([220.0, 30.0, 30.0]) * red
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
