"""Sketches there and back, and bytes that are none."""

import io

import numpy as np
import pytest

from app.sharing.codec import SketchError, kept_from, pack, pack_kept, unpack
from detectors.calibration import BenignSample
from detectors.reservoir import Kept

SAMPLE = BenignSample(
    np.array([3, 1]), None, {"psc": np.array([[0.1, 1 / 3], [0.5, 1e-300]]), "spc": np.ones((2, 1))}
)


def test_a_sample_comes_back_to_the_last_bit() -> None:
    found = kept_from(pack_kept(Kept(7, SAMPLE)))
    assert found.seen == 7
    assert found.sample.predicted.tolist() == [3, 1]
    assert found.sample.labels is None
    assert {name: values.tolist() for name, values in found.sample.evidence.items()} == {
        name: values.tolist() for name, values in SAMPLE.evidence.items()
    }


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, seen=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


@pytest.mark.parametrize("content", [b"", b"junk", pack({"x": np.ones(2)})[:-30], pickled()])
def test_bytes_that_are_no_sketch(content: bytes) -> None:
    with pytest.raises(SketchError):
        unpack(content)


@pytest.mark.parametrize(
    "arrays",
    [
        {"predicted": np.ones(2)},
        {"seen": np.array([1]), "predicted": np.ones(2)},
        {"seen": np.array([5]), "predicted": np.ones(2), "evidence psc": np.ones((3, 1))},
    ],
)
def test_a_sample_that_is_not_whole(arrays: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    with pytest.raises(SketchError):
        kept_from(pack(arrays))
