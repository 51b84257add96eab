"""What the blocking client and the asynchronous one have in common: requests, answers, and patience."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import httpx

from app.client.errors import ClientError, Refused, Unreachable, check, json_of
from app.client.files import Image, content_of
from app.client.results import Result

__all__ = ["Options", "Patience", "Post", "post", "results_of"]

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
GRACE = 1.0  # seconds that an answer may take to arrive after the gateway's own deadline
BUSY = (429, 503)


@dataclass(frozen=True)
class Options:
    """How a client behaves.

    `deadline`: seconds for one request, its repetitions included. `retries`: repetitions at most, of what
    the gateway itself says may be repeated (429 and 503 with `Retry-After`), or where the connection broke.
    `batch` images and `batch_bytes` a request at most; `concurrency` requests at a time.
    """

    deadline: float = 60.0
    retries: int = 5
    batch: int = 32
    batch_bytes: int = 24 * 1024 * 1024
    concurrency: int = 4
    full: bool = False


class Post(TypedDict):
    """Arguments of httpx's `post`."""

    url: str
    params: dict[str, str]
    files: list[tuple[str, Any]]
    headers: dict[str, str]
    timeout: float


def post(images: Sequence[Image], full: bool, seconds: float) -> Post:
    """The request about `images`, which has `seconds` left. Raises `ValueError` for an unreadable file."""
    parts = [("images", (f"{number}", content_of(image))) for number, image in enumerate(images)]
    return {
        "url": "/classify",
        "params": {"full": "true"} if full else {},
        "files": parts,
        "headers": {"X-Request-Timeout-Ms": str(max(1, int(seconds * 1000)))},
        "timeout": seconds + GRACE,
    }


def results_of(answer: httpx.Response, count: int) -> list[Result]:
    """Raises `ClientError`."""
    content = json_of(check(answer))
    try:
        results = [Result.of(each) for each in content["results"]]
    except (KeyError, TypeError) as error:
        raise Unreachable(f"{answer.url} answered what no gateway answers") from error
    if len(results) != count:
        raise Unreachable(f"{answer.url} answered {len(results)} results for {count} images")
    return results


class Patience:
    """One request's time and repetitions."""

    def __init__(self, options: Options) -> None:
        self._left = options.retries
        self._until = time.monotonic() + options.deadline
        self._failed = 0

    def seconds(self) -> float:
        """Time left, more than none."""
        return max(0.001, self._until - time.monotonic())

    def pause(self, error: Exception) -> float:
        """Seconds to wait before trying again after `error`. Raises it, as a `ClientError`, where that
        would be in vain."""
        wait = self._wait(error)
        if wait is None or not self._left or time.monotonic() + wait >= self._until:
            raise error if isinstance(error, ClientError) else _unreachable(error)
        self._left -= 1
        return wait

    def _wait(self, error: Exception) -> float | None:
        """None where trying again does not help."""
        spread = random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failed))
        self._failed += 1
        if isinstance(error, Refused):
            may = error.status in BUSY and error.retry_after is not None
            return (error.retry_after or 0.0) + spread if may else None
        broke = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
        return spread if broke and not isinstance(error, httpx.ConnectError) else None


def _unreachable(error: Exception) -> Unreachable:
    found = Unreachable(f"the gateway does not answer: {error or type(error).__name__}")
    found.__cause__ = error
    return found
