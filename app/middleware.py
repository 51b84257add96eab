"""Around every request: its id and its metrics. Plain ASGI, no framework."""

import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app import context
from app.metrics import Metrics

__all__ = ["CLIENT_GONE", "App", "Message", "Receive", "RequestContext", "Scope", "Send"]

log = logging.getLogger("triggerwall.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CLIENT_GONE = 499  # what nginx calls it: nobody was left to answer


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
