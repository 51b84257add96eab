"""Around every request: its id, its metrics, the limit on its body. Plain ASGI, no framework."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app import context
from app.metrics import Metrics

__all__ = ["CLIENT_GONE", "BodyLimit", "BodyTooLarge", "RequestContext"]

log = logging.getLogger("triggerwall.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499  # what nginx calls it: nobody was left to answer


class BodyTooLarge(Exception):  # noqa: N818  (it names what is wrong)
    """Raised while a body is read that is larger than its path takes."""


class RequestContext:
    """Gives a request its id, counts and times it, and answers for what nobody else caught."""

    def __init__(self, app: App, metrics: Metrics, unexpected: App) -> None:
        """`unexpected` answers a request whose handling raised something nobody foresaw."""
        self.app, self.metrics, self.unexpected = app, metrics, unexpected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        context.request_id.set(request_id)
        status = CLIENT_GONE
        started = time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_on)
            except Exception:
                log.exception("request %s failed", request_id)
                if status != CLIENT_GONE:
                    raise  # half an answer is out: let the server break the connection off
                await self.unexpected(scope, receive, send_on)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                self.metrics.request(scope["method"], route, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    """The client's own id where it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid.uuid4().hex


class BodyLimit:
    """Stops reading a body at the limit of its path, by its declared length and by what really comes.

    Nothing is read before the path's handler asks, so that who may not send is told so first.
    """

    def __init__(self, app: App, default: int, by_path: dict[str, int]) -> None:
        """Limits in bytes."""
        self.app, self.default, self.by_path = app, default, by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.by_path.get(scope["path"], self.default)
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        received = int(declared) if declared.isdigit() and int(declared) > limit else 0

        async def receive_within() -> Message:
            nonlocal received
            if received > limit:
                raise BodyTooLarge(f"the body is larger than the {limit} bytes that this path takes")
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLarge(f"the body is larger than the {limit} bytes that this path takes")
            return message

        await self.app(scope, receive_within, send)
