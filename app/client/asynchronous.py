"""The same for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from app.client.calls import Options, Patience, post, results_of
from app.client.errors import Refused
from app.client.files import Image, batches, image_files
from app.client.results import Result

__all__ = ["AsyncClient"]

Progress = Callable[[int, int], object]


class AsyncClient:
    """One gateway by its URL; `key` is sent as X-API-Key."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        options: Options | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.options = options or Options()
        headers = {"X-API-Key": key} if key else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._http.aclose()

    async def classify(self, images: Sequence[Image], progress: Progress | None = None) -> list[Result]:
        """The results of `images`, files or bytes, in order; several requests at a time.

        Raises `ClientError`, and `ValueError` for a file that cannot be read.
        """
        return [result async for _, result in self.results(images, progress)]

    async def classify_folder(
        self, folder: str | Path, progress: Progress | None = None
    ) -> AsyncIterator[tuple[Path, Result]]:
        """The image files below `folder` with their results, in sorted order, as they come."""
        files = await asyncio.to_thread(image_files, [Path(folder)])
        async for image, result in self.results(files, progress):
            assert isinstance(image, Path)
            yield image, result

    async def results(
        self, images: Sequence[Image], progress: Progress | None = None
    ) -> AsyncIterator[tuple[Image, Result]]:
        """As `classify`, as they come."""
        cut = list(batches(images, self.options.batch, self.options.batch_bytes))
        slots = asyncio.Semaphore(self.options.concurrency)
        tasks = [asyncio.create_task(self._ask(batch, slots)) for batch in cut]
        done = 0
        try:
            for batch, task in zip(cut, tasks, strict=True):
                results = await task
                done += len(batch)
                if progress is not None:
                    progress(done, len(images))
                for image, result in zip(batch, results, strict=True):
                    yield image, result
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, batch: Sequence[Image], slots: asyncio.Semaphore) -> list[Result]:
        async with slots:
            patience = Patience(self.options)
            while True:
                try:
                    request = await asyncio.to_thread(post, batch, self.options.full, patience.seconds())
                    return results_of(await self._http.post(**request), len(batch))
                except (httpx.HTTPError, Refused) as error:
                    await asyncio.sleep(patience.pause(error))
