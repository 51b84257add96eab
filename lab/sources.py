"""The images of a training run as the command line names them, and where they came from."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.data import ImageSet, LabError, Split, open_images

__all__ = ["open_split", "open_training"]

NAMED = 3  # of the unreadable files, in a message


def open_split(source: str, split: Split | None, channels: int, warn: Callable[[str], object]) -> ImageSet:
    """One split of `source`; `warn` gets a sentence that names its unreadable files. Raises `LabError`."""
    if channels not in (1, 3):
        raise LabError(f"channels is 1 for grey or 3 for colour, not {channels}")
    images = open_images(source, split, channels)
    if images.skipped:
        named = ", ".join(images.skipped[:NAMED]) + (", …" if len(images.skipped) > NAMED else "")
        warn(f"{len(images.skipped)} unreadable {split} files skipped: {named}")
    return images


def open_training(
    source: str, channels: int, exclude: Sequence[str], warn: Callable[[str], object]
) -> tuple[ImageSet, ImageSet, dict[str, Any]]:
    """Training images without those of `exclude`, test images, and both's provenance for the record."""
    training = open_split(source, "train", channels, warn)
    test = open_split(source, "test", channels, warn)
    before = len(training)
    for other in exclude:
        training = training.without(open_images(other, channels=channels))
    # Names only: where the files lie is nobody's business who gets the bundle.
    origins = [Path(other).name for other in exclude]
    excluded = before - len(training)
    return training, test, {"data": Path(source).name, "excluded": excluded, "exclude": origins}
