"""Around every request: its id and its metrics. Plain ASGI, no framework."""

import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from app import context
from app.metrics import Metrics
from app.tracing import NoSpans, Spans, TraceParent

__all__ = ["CLIENT_GONE", "App", "Message", "Receive", "RequestContext", "Scope", "Send"]

log = logging.getLogger("triggerwall.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
SERVER_ERROR = 500
CLIENT_GONE = 499  # what nginx calls it: nobody was left to answer


class RequestContext:
    """Gives a request its id and span, counts and times it, and answers for what nobody else caught."""

    def __init__(self, app: App, metrics: Metrics, unexpected: App, spans: Spans | None = None) -> None:
        """`unexpected` answers a request whose handling raised something nobody foresaw."""
        self.app, self.metrics, self.unexpected = app, metrics, unexpected
        self.spans = spans or NoSpans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        context.request_id.set(request_id)
        parent = _parent(scope)
        own = parent.child() if parent else None
        context.trace_id.set(own.trace_id if own else "")
        stages: list[context.Stage] = []
        context.stages.set(stages)
        headers = [(b"x-request-id", request_id.encode())]
        headers += [(b"traceparent", str(own).encode())] if own else []
        status = CLIENT_GONE
        started = time.perf_counter()

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_on)
            except Exception:
                log.exception("the request failed")
                if status != CLIENT_GONE:
                    raise  # half an answer is out: let the server break the connection off
                await self.unexpected(scope, receive, send_on)
            finally:
                route = getattr(scope.get("route"), "path", "unmatched")
                seconds = time.perf_counter() - started
                self.metrics.request(scope["method"], route, status, seconds)
                level = logging.WARNING if status >= SERVER_ERROR else logging.DEBUG
                log.log(level, "%s %s %d in %.1f ms", scope["method"], route, status, 1000 * seconds)
                facts: dict[str, str | int] = {
                    "http.request.method": scope["method"],
                    "http.route": route,
                    "http.response.status_code": status,
                    "triggerwall.request_id": request_id,
                }
                self.spans.record(f"{scope['method']} {route}", parent, own, started, stages, facts)


def _request_id(scope: Scope) -> str:
    """The client's own id where it is harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return f"{random.getrandbits(128):032x}"  # it names a request, and protects nothing


def _parent(scope: Scope) -> TraceParent | None:
    """The sender's span, where they named exactly one."""
    named = [value for name, value in scope["headers"] if name == b"traceparent"]
    return TraceParent.read(named[0]) if len(named) == 1 else None
