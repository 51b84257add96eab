"""The blocking client: images in, typed results out."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from app.client.calls import Options, Patience, post, results_of
from app.client.errors import Refused
from app.client.files import Image, batches, image_files
from app.client.results import Result

__all__ = ["Client"]

Progress = Callable[[int, int], object]
"""Told how many images are done, of how many."""


class Client:
    """One gateway by its URL; `key` is sent as X-API-Key. Threads may share it."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        options: Options | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.options = options or Options()
        headers = {"X-API-Key": key} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def classify(self, images: Sequence[Image], progress: Progress | None = None) -> list[Result]:
        """The results of `images`, files or bytes, in order; several requests at a time.

        Raises `ClientError`, and `ValueError` for a file that cannot be read; what was not begun by then is
        not sent.
        """
        return [result for _, result in self.results(images, progress)]

    def classify_folder(
        self, folder: str | Path, progress: Progress | None = None
    ) -> Iterator[tuple[Path, Result]]:
        """The image files below `folder` with their results, in sorted order, as they come."""
        files = image_files([Path(folder)])
        for image, result in self.results(files, progress):
            assert isinstance(image, Path)
            yield image, result

    def results(
        self, images: Sequence[Image], progress: Progress | None = None
    ) -> Iterator[tuple[Image, Result]]:
        """As `classify`, as they come."""
        cut = list(batches(images, self.options.batch, self.options.batch_bytes))
        done = 0
        pool = ThreadPoolExecutor(self.options.concurrency)
        try:
            for batch, results in zip(cut, pool.map(self._ask, cut), strict=True):
                done += len(batch)
                if progress is not None:
                    progress(done, len(images))
                yield from zip(batch, results, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)

    def _ask(self, batch: Sequence[Image]) -> list[Result]:
        patience = Patience(self.options)
        while True:
            try:
                answer = self._http.post(**post(batch, self.options.full, patience.seconds()))
                return results_of(answer, len(batch))
            except (httpx.HTTPError, Refused) as error:
                time.sleep(patience.pause(error))
