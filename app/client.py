"""A small client of the gateway, for the command line."""

import contextlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote as quoted

import httpx

__all__ = ["ClientError", "GatewayClient", "as_archive", "image_files"]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".gif", ".tif", ".tiff", ".avif"}
Advance = Callable[[int], object]
"""Told how many more bytes have been sent."""


class ClientError(Exception):
    """The gateway could not be reached, or answered with a problem; the text says which and why."""


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


class Upload:
    """A file that tells how much of it has been read."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self.file, self.advance = file, advance

    def read(self, size: int = -1) -> bytes:
        chunk = self.file.read(size)
        self.advance(len(chunk))
        return chunk

    def __getattr__(self, name: str) -> Any:  # httpx asks a file for its length and position
        return getattr(self.file, name)


class GatewayClient:
    """One gateway by its URL; `key` is sent as X-API-Key."""

    def __init__(
        self, url: str, key: str | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"X-API-Key": key} if key else {}
        timeout = httpx.Timeout(30, read=600)  # calibrating takes as long as the device takes
        self.http = httpx.Client(base_url=url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.http.close()

    def classify(self, paths: Sequence[Path], *, full: bool = False) -> list[dict[str, Any]]:
        """The results of the images in `paths`, in order, by one request.

        Raises `ClientError`, and `ValueError` for a file that cannot be read.
        """
        with contextlib.ExitStack() as stack:
            parts = [("images", (path.name, stack.enter_context(_open(path)))) for path in paths]
            answer = self._request(
                "POST", "/classify", params={"full": "true"} if full else None, files=parts
            )
        results: list[dict[str, Any]] = answer["results"]
        return results

    def calibrate(
        self,
        source: Path,
        alpha: float | None,
        started: Callable[[int], Advance],
        contamination: float | None = None,
        *,
        false_alarms: bool = False,
    ) -> dict[str, Any]:
        """Send a zip, or a folder in class-per-folder layout, and return the calibration report.

        `started` is told the bytes to send and gives the function that is told of each step.
        """
        with as_archive(source) as archive, _open(archive) as file:
            upload = Upload(file, started(archive.stat().st_size))
            parts = {"archive": (archive.name, upload, "application/zip")}
            given = {"alpha": alpha, "contamination": contamination}
            given |= {"false_alarms": True} if false_alarms else {}
            fields = {name: str(value) for name, value in given.items() if value is not None}
            return self._request("POST", "/calibrate", data=fields, files=parts)

    def decisions(self, asked: Mapping[str, str]) -> Iterator[str]:
        """Stored decisions as JSON, the oldest first, one at a time. Raises `ClientError`."""
        try:
            with self.http.stream("GET", "/decisions/export", params=asked) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._problem(answer, "/decisions/export")
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise ClientError(f"{self.http.base_url} broke off: {error or type(error).__name__}") from error

    def info(self) -> dict[str, Any]:
        return self._request("GET", "/info")

    def calibrations(self) -> dict[str, Any]:
        """All calibrations, and what was active when."""
        return self._request("GET", "/calibrations")

    def calibration(self, id: str) -> dict[str, Any]:
        """The report of one calibration."""
        return self._request("GET", f"/calibrations/{_part(id)}")

    def page(self, id: str) -> bytes:
        """The same report as an HTML page."""
        return self._send("GET", f"/calibrations/{_part(id)}/report").content

    def export(self, id: str) -> bytes:
        return self._send("GET", f"/calibrations/{_part(id)}/export").content

    def import_(self, artefact: bytes, *, activate: bool) -> dict[str, Any]:
        """Hand over an exported file and return the report of the calibration in it."""
        return self._request(
            "POST",
            "/calibrations/import",
            params={"activate": str(activate).lower()},
            content=artefact,
            headers={"Content-Type": "application/json"},
        )

    def activate(self, id: str) -> dict[str, Any]:
        return self._request("POST", f"/calibrations/{_part(id)}/activate")

    def compare(self, a: str, b: str) -> dict[str, Any]:
        return self._request("GET", f"/calibrations/{_part(a)}/compare/{_part(b)}")

    def learn(self, alpha: float | None, contamination: float | None) -> dict[str, Any]:
        """Calibrate on the gateway's own traffic, and return the calibration report."""
        asked = {"alpha": alpha, "contamination": contamination}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._request("POST", "/calibrations/from-traffic", json=given)

    def switch(self, mode: str) -> None:
        """Enforce or monitor from now on."""
        self._request("POST", "/mode", json={"mode": mode})

    def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._json(self._send(method, path, **options), path)
        return found

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, unless it is a problem. Raises `ClientError`."""
        try:
            answer = self.http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ClientError(
                f"{self.http.base_url} does not answer: {error or type(error).__name__}"
            ) from error
        if answer.is_error:
            raise self._problem(answer, path)
        return answer

    def _problem(self, answer: httpx.Response, path: str) -> ClientError:
        content = self._json(answer, path)
        return ClientError(f"{content.get('title', answer.status_code)}: {content.get('detail', '')}")

    def _json(self, answer: httpx.Response, path: str) -> Any:
        try:
            return answer.json()
        except ValueError as error:
            raise ClientError(
                f"{self.http.base_url}{path} did not answer in JSON: is it a gateway?"
            ) from error


def _part(id: str) -> str:
    """`id` as one part of a path, whatever is in it."""
    return quoted(id, safe="")


def _open(path: Path) -> IO[bytes]:
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
