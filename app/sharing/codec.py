"""Sketches as bytes: arrays of numbers, compressed, and never anything that could be executed."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.calibration import BenignSample
from detectors.reservoir import Kept

__all__ = ["SketchError", "kept_from", "pack", "pack_kept", "unpack"]

Arrays = Mapping[str, npt.NDArray[Any]]
EVIDENCE = "evidence "
BROKEN = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error)


class SketchError(Exception):
    """Raised for bytes that are no sketch: another release wrote them, say."""


def pack(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(content: bytes) -> Arrays:
    """Raises `SketchError`."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except BROKEN as error:
        raise SketchError(f"a sketch cannot be read: {error}") from error


def pack_kept(kept: Kept) -> bytes:
    """A sample of traffic: predictions and evidence, no images and no labels."""
    evidence = {EVIDENCE + name: values for name, values in kept.sample.evidence.items()}
    return pack({"seen": np.array([kept.seen]), "predicted": kept.sample.predicted, **evidence})


def kept_from(content: bytes) -> Kept:
    """Raises `SketchError`."""
    arrays = unpack(content)
    try:
        seen, predicted = int(arrays["seen"][0]), arrays["predicted"]
    except BROKEN as error:
        raise SketchError(f"a sketch has no sample: {error!r}") from error
    evidence = {name.removeprefix(EVIDENCE): v for name, v in arrays.items() if name.startswith(EVIDENCE)}
    if any(len(values) != len(predicted) for values in evidence.values()) or seen < len(predicted):
        raise SketchError("a sketch's sample is not whole")
    return Kept(seen, BenignSample(predicted, None, evidence))
