"""Decodes images on threads of its own, beside the event loop and the device."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from app.batcher import DeadlineExceeded
from app.images import Decoder, ImageError, Pixels
from app.threads import name_this_thread

__all__ = ["DecodePool"]

P = ParamSpec("P")
R = TypeVar("R")


class DecodePool:
    """A bounded number of threads around one `Decoder`."""

    def __init__(self, decoder: Decoder, threads: int, observe: Callable[[float], None]) -> None:
        """`observe` is told the seconds that each image took."""
        self._decoder, self._observe = decoder, observe
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
        return list(await asyncio.gather(*(self._one(image, deadline) for image in images)))

    async def _one(self, image: bytes | Pixels | ImageError, deadline: float) -> Pixels | ImageError:
        return await self.run(self._timed, image, deadline) if isinstance(image, bytes) else image

    def _timed(self, data: bytes, deadline: float) -> Pixels | ImageError:
        if time.monotonic() >= deadline:
            raise DeadlineExceeded("the deadline passed before the images were decoded")
        started = time.perf_counter()
        try:
            return self._decoder(data)
        except ImageError as error:
            return error
        finally:
            self._observe(time.perf_counter() - started)

    def close(self) -> None:
        """Finish what was given, then end the threads. Blocks."""
        self._executor.shutdown(wait=True)
