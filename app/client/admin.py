"""The paths of an admin: calibrations, modes, decisions."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote as quoted

import httpx

from app.client.errors import Unreachable, check, json_of
from app.client.files import as_archive, opened

__all__ = ["Advance", "GatewayClient"]

Advance = Callable[[int], object]
"""Told how many more bytes have been sent."""


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
        with as_archive(source) as archive, opened(archive) as file:
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
                check(answer)
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise Unreachable(f"{self.http.base_url} broke off: {error or type(error).__name__}") from error

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
        found: dict[str, Any] = json_of(self._send(method, path, **options))
        return found

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, unless it is a problem. Raises `ClientError`."""
        try:
            return check(self.http.request(method, path, **options))
        except httpx.HTTPError as error:
            raise Unreachable(
                f"{self.http.base_url} does not answer: {error or type(error).__name__}"
            ) from error


def _part(id: str) -> str:
    """`id` as one part of a path, whatever is in it."""
    return quoted(id, safe="")
