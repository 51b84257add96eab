"""A cleaned training set on disk: which images it kept, and on request the images themselves."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from lab.data import ImageSet

__all__ = ["write_archive", "write_indices"]


def write_indices(removed: np.ndarray, file: Path) -> None:
    """JSON with `kept` and `removed`: ascending positions in the training set, for `removed` (N,) bool."""
    content = {"kept": np.flatnonzero(~removed).tolist(), "removed": np.flatnonzero(removed).tolist()}
    file.write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_archive(training: ImageSet, test: ImageSet, file: Path) -> None:
    """A zip with train/CLASS/FILE and test/CLASS/FILE, each split in its order: what `open_images` reads.

    The pixels are exact (PNG). The test images come along so that it can be trained on as it is.
    """
    partial = file.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:  # stored: a PNG does not shrink further
        for split, images in (("train", training), ("test", test)):
            digits = len(str(len(images)))
            for number, (image, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
                archive.writestr(f"{split}/{images.classes[label]}/{number:0{digits}d}.png", _png(image))
    partial.replace(file)


def _png(image: Tensor) -> bytes:
    """`image` (C, H, W) uint8, C 1 or 3."""
    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
