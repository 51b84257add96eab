"""Images on disk: which there are, their bytes, and batches of them that a gateway takes."""

import contextlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

__all__ = ["Image", "as_archive", "batches", "content_of", "image_files", "opened"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".avif"}
Image = Path | bytes
"""An encoded image, or the file that holds it."""


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the image files below the folders among them, in sorted order."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [
                f for f in sorted(path.rglob("*")) if f.is_file() and f.suffix.lower() in IMAGE_SUFFIXES
            ]
        else:
            found.append(path)
    return found


def batches(images: Iterable[Image], most: int, most_bytes: int) -> Iterator[list[Image]]:
    """Cut `images` into lists of at most `most`, and of at most `most_bytes` where they are that small."""
    batch: list[Image] = []
    size = 0
    for image in images:
        own = _size(image)
        if batch and (len(batch) == most or size + own > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += own
    if batch:
        yield batch


def _size(image: Image) -> int:
    if isinstance(image, bytes):
        return len(image)
    try:
        return image.stat().st_size
    except OSError:
        return 0  # told when it is read


def content_of(image: Image) -> bytes:
    """Raises `ValueError` for a file that cannot be read."""
    if isinstance(image, bytes):
        return image
    with opened(image) as file:
        return file.read()


def opened(path: Path) -> IO[bytes]:
    """Raises `ValueError` for a file that cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@contextlib.contextmanager
def as_archive(source: Path) -> Iterator[Path]:
    """`source` itself where it is a file; a folder is packed into a temporary zip first."""
    if not source.is_dir():
        yield source
        return
    files = image_files([source])
    if not files:
        raise ValueError(f"{source} holds no images")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{source.name or 'images'}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(source).as_posix())
        yield path
