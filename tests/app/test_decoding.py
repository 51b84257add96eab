"""Where images are decoded, and what is said of those that cannot be."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from PIL import Image

from app.batcher import DeadlineExceeded
from app.decoding import TINY_BYTES, TINY_PIXELS, DecodePool
from app.images import Decoder, ImageError, OversizedImage, Pixels, UnreadableImage
from tests.app.tiny import encoded

DECODER = Decoder((8, 8), 3, "bilinear", ("PNG",), max_bytes=1_000_000, max_pixels=100 * 100)
TINY = encoded(Image.new("RGB", (64, 64), "red"))
LARGER = encoded(Image.new("RGB", (65, 64), "red"))  # by a column, and no more bytes
LONG = TINY + bytes(TINY_BYTES)  # what follows the image is not read


class Pool(DecodePool):
    """Remembers which threads decoded."""

    def __init__(self, decoder: Decoder = DECODER) -> None:
        self.seconds: list[float] = []
        self.threads: list[str] = []
        super().__init__(decoder, 2, self._note)

    def _note(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.threads.append(threading.current_thread().name)

    def run_all(self, images: Sequence[bytes], deadline: float = np.inf) -> list[Pixels | ImageError]:
        return asyncio.run(self.decode(images, deadline))


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.close()


def test_a_tiny_image_alone_is_decoded_at_once(pool: Pool) -> None:
    assert len(TINY) < TINY_BYTES
    assert TINY_PIXELS == 64 * 64
    (found,) = pool.run_all([TINY])
    assert np.array_equal(found, DECODER(TINY))
    assert pool.threads == [threading.current_thread().name]


@pytest.mark.parametrize("images", [[LARGER], [LONG], [TINY, TINY]], ids=["larger", "longer", "several"])
def test_everything_else_is_decoded_on_threads(pool: Pool, images: list[bytes]) -> None:
    found = pool.run_all(images)
    assert all(np.array_equal(pixels, DECODER(image)) for pixels, image in zip(found, images, strict=True))
    assert pool.threads == ["decode"] * len(images)  # each counted once


def test_a_broken_tiny_image_is_told_so(pool: Pool) -> None:
    (found,) = pool.run_all([TINY[:60]])
    assert isinstance(found, UnreadableImage)
    assert len(pool.seconds) == 1


def test_the_limits_told_are_those_of_the_settings(pool: Pool) -> None:
    (found,) = pool.run_all([encoded(Image.new("RGB", (101, 100)))])
    assert isinstance(found, OversizedImage)
    assert str(found) == "the image is 101×100, more than the 10000 pixels that are taken"
    assert pool.seconds == []


def test_limits_below_tiny_hold_too() -> None:
    strict = Pool(Decoder((8, 8), 3, "bilinear", ("PNG",), max_bytes=1_000_000, max_pixels=100))
    (found,) = strict.run_all([TINY])
    strict.close()
    assert str(found) == "the image is 64×64, more than the 100 pixels that are taken"


def test_what_is_late_is_not_decoded_on_a_thread(pool: Pool) -> None:
    with pytest.raises(DeadlineExceeded):
        pool.run_all([LARGER], deadline=time.monotonic() - 1)
    assert pool.seconds == []
