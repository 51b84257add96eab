"""Reading request bodies: how long one may be, how slowly it may come, and how much of all may be held."""

import asyncio
import time
from dataclasses import dataclass

from app.middleware import App, Message, Receive, Scope, Send

__all__ = ["BodyLimit", "BodyRules", "BodyTooLarge", "BodyTooSlow", "TooMuchInFlight"]


class BodyTooLarge(Exception):  # noqa: N818  (they name what is wrong)
    """Raised while a body is read that is larger than its path takes."""


class BodyTooSlow(Exception):  # noqa: N818
    """Raised while a body is read that comes so slowly that it holds its connection for nothing."""


class TooMuchInFlight(Exception):  # noqa: N818
    """Raised while a body is read and the bodies of all requests together have become too many bytes."""

    retry_after = 1.0  # seconds


@dataclass(frozen=True)
class BodyRules:
    """`largest`: bytes of one body, by path where `by_path` says so. `patience_s` and `least_rate`: a body
    has so many seconds, and one more for so many bytes that have come. `in_flight`: bytes of the bodies of
    all requests that are being answered, those of the paths in `spooled` aside: they lie on the disk."""

    largest: int
    by_path: dict[str, int]
    patience_s: float
    least_rate: float
    in_flight: int
    spooled: frozenset[str] = frozenset()


class BodyLimit:
    """Stops reading a body at the limits, by its declared length and by what really comes.

    Nothing is read before the path's handler asks, so that who may not send is told so first.
    """

    def __init__(self, app: App, rules: BodyRules) -> None:
        self.app, self.rules = app, rules
        self.in_flight = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(self, scope, receive)
        try:
            await self.app(scope, body.receive, send)
        finally:
            self.in_flight -= body.held


class _Body:
    """One request's body while it comes."""

    def __init__(self, limit: BodyLimit, scope: Scope, receive: Receive) -> None:
        rules = limit.rules
        self._limit, self._receive = limit, receive
        self._largest = rules.by_path.get(scope["path"], rules.largest)
        self._spooled = scope["path"] in rules.spooled
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._too_large = declared.isdigit() and int(declared) > self._largest
        self._complete = False
        self._began: float | None = None
        self._received = 0
        self.held = 0

    async def receive(self) -> Message:
        """The next message; raises what the module's exceptions say."""
        if self._complete:
            return await self._receive()  # the client going away, whenever that is
        self._check_size()
        message = await self._next()
        if message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        self._received += size
        self._complete = not message.get("more_body", False)
        self._hold(size)
        self._check_size()
        return message

    def _check_size(self) -> None:
        if self._too_large or self._received > self._largest:
            self._too_large = True
            raise BodyTooLarge(f"the body is larger than the {self._largest} bytes that this path takes")

    async def _next(self) -> Message:
        rules, now = self._limit.rules, time.monotonic()
        self._began = now if self._began is None else self._began
        given = rules.patience_s + self._received / rules.least_rate
        try:
            async with asyncio.timeout(self._began + given - now):
                return await self._receive()
        except TimeoutError as error:
            came = f"only {self._received} bytes of the body came in {given:.1f} s"
            raise BodyTooSlow(f"{came}; send it faster, or in smaller requests") from error

    def _hold(self, size: int) -> None:
        if self._spooled:
            return
        self.held += size
        self._limit.in_flight += size
        if self._limit.in_flight > self._limit.rules.in_flight:
            raise TooMuchInFlight("the bodies of all requests together are too large; try again shortly")
