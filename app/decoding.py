"""Decodes images on threads of its own, beside the event loop and the device."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

from app.batcher import DeadlineExceeded
from app.images import Decoder, ImageError, OversizedImage, Pixels
from app.threads import name_this_thread

__all__ = ["DecodePool"]

P = ParamSpec("P")
R = TypeVar("R")

TINY_BYTES, TINY_PIXELS = 16 * 1024, 64 * 64  # what is decoded on the event loop, at most


class DecodePool:
    """A bounded number of threads around one `Decoder`.

    A tiny image that comes alone is decoded where it is: that takes less than the way to a thread and back.
    """

    def __init__(self, decoder: Decoder, threads: int, observe: Callable[[float], None]) -> None:
        """`observe` is told the seconds that each image took."""
        self._decoder, self._observe = decoder, observe
        self._tiny = replace(
            decoder,
            max_bytes=min(TINY_BYTES, decoder.max_bytes),
            max_pixels=min(TINY_PIXELS, decoder.max_pixels),
        )
        self._executor = ThreadPoolExecutor(threads, initializer=name_this_thread, initargs=("decode",))

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await `function(*args, **kwargs)` on one of the threads."""
        return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    async def decode(
        self, images: Sequence[bytes | Pixels | ImageError], deadline: float = math.inf
    ) -> list[Pixels | ImageError]:
        """The pixels of each image, or why there are none. What is pixels or an error already stays so.

        Raises `DeadlineExceeded` where an image's turn comes after `deadline`, seconds of `time.monotonic`.
        """
        if len(images) == 1 and (found := self._at_once(images[0])) is not None:
            return [found]
        return list(await asyncio.gather(*(self._one(image, deadline) for image in images)))

    def _at_once(self, image: bytes | Pixels | ImageError) -> Pixels | ImageError | None:
        """As `decode`, of one image; None where that is a thread's work."""
        try:
            return self._timed(self._tiny, image) if isinstance(image, bytes) else image
        except OversizedImage:
            return None

    async def _one(self, image: bytes | Pixels | ImageError, deadline: float) -> Pixels | ImageError:
        return await self.run(self._in_turn, image, deadline) if isinstance(image, bytes) else image

    def _in_turn(self, data: bytes, deadline: float) -> Pixels | ImageError:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline passed before the images were decoded")
        try:
            return self._timed(self._decoder, data)
        except OversizedImage as error:
            return error

    def _timed(self, decoder: Decoder, data: bytes) -> Pixels | ImageError:
        """Raises `OversizedImage` alone: what is refused for its size takes no time."""
        started = time.perf_counter()
        try:
            found: Pixels | ImageError = decoder(data)
        except OversizedImage:
            raise
        except ImageError as error:
            found = error
        self._observe(time.perf_counter() - started)
        return found

    def close(self) -> None:
        """Finish what was given, then end the threads. Blocks."""
        self._executor.shutdown(wait=True)
