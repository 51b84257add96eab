"""One client's connection: how many there may be, and how long one may take to say something.

uvicorn closes connections that idle between two requests, and nothing else: one that never asks, or sends
its request byte by byte, is held for ever. This stands between a socket and uvicorn's own protocol.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from uvicorn import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

__all__ = ["ConnectionLimits", "LimitedConnection", "limited"]


@dataclass(frozen=True)
class ConnectionLimits:
    """`connections`: how many at one port. `head_s`: seconds in which a request's head has to be complete,
    and a connection's first one; also how long the rest of a refused body is listened to. `head_bytes`: its
    length. `write_s`: seconds in which a client has to take what it asked for."""

    connections: int
    head_s: float
    head_bytes: int
    write_s: float


def _refusal(status: bytes, slug: bytes, detail: bytes, headers: bytes = b"") -> bytes:
    body = b'{"type":"urn:triggerwall:problem:%s","title":"%s","status":%s,"detail":"%s"}' % (
        *(slug, status.partition(b" ")[2], status.partition(b" ")[0], detail),
    )
    return (
        b"HTTP/1.1 %s\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n%sConnection: close"
        b"\r\n\r\n%s" % (status, len(body), headers, body)
    )


FULL = _refusal(
    b"503 Service Unavailable", b"overloaded", b"there are too many connections", b"Retry-After: 1\r\n"
)
SLOW = _refusal(b"408 Request Timeout", b"too-slow", b"the head of the request did not come in time")
LONG = _refusal(
    b"431 Request Header Fields Too Large", b"head-too-large", b"the head of the request is too long"
)


Connections = defaultdict[int, "set[LimitedConnection]"]


def limited(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """What makes the connections of one server, for uvicorn's `http` option."""
    connections: Connections = defaultdict(set)

    def make(config: Config, **state: Any) -> asyncio.Protocol:
        make_inner = cast(Callable[..., asyncio.Protocol], AutoHTTPProtocol)
        return LimitedConnection(make_inner(config=config, **state), limits, connections)

    return make


class LimitedConnection(asyncio.Protocol):
    """Hands everything on to `inner`, uvicorn's protocol, and watches its `cycle`: the request being
    answered, with `response_complete` and `more_body`."""

    def __init__(self, inner: asyncio.Protocol, limits: ConnectionLimits, connections: "Connections") -> None:
        """`connections` are the open ones of this server, by port: an admin's port stays free whatever goes
        on at the public one."""
        self._inner: Any = inner
        self._limits, self._all = limits, connections
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._asked: Any = None  # the latest request whose head was measured

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections = self._all[transport.get_extra_info("sockname")[1]]
        if len(self._connections) >= self._limits.connections:
            self._close(FULL)
            return
        self._connections.add(self)
        self._inner.connection_made(transport)
        self._arm()

    def connection_lost(self, error: Exception | None) -> None:
        self._disarm()
        if self._writing is not None:
            self._writing.cancel()
        if self in self._connections:
            self._connections.remove(self)
            self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self not in self._connections or self._transport.is_closing():
            return
        self._inner.data_received(data)
        cycle = self._inner.cycle
        if cycle is not None and not cycle.response_complete:
            self._disarm()  # a request is being answered; how its body comes is watched there
            self._head_bytes = 0
            self._measure(cycle)
            return
        self._arm()  # no later bytes give it more time
        if cycle is None or not cycle.more_body:  # else it is the rest of a body that was refused
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._close(LONG)

    def _measure(self, cycle: Any) -> None:
        """A head that came in one piece was never counted while it was incomplete."""
        if cycle is self._asked:
            return
        self._asked, scope = cycle, cycle.scope
        length = len(scope["raw_path"]) + len(scope["query_string"])
        length += sum(len(name) + len(value) for name, value in scope["headers"])
        if length > self._limits.head_bytes:
            self._close(LONG)

    def eof_received(self) -> bool | None:
        return bool(self._inner.eof_received()) if self in self._connections else None

    # --- what the client does not take ------------------------------------------------------------

    def pause_writing(self) -> None:
        loop = asyncio.get_running_loop()
        self._writing = loop.call_later(self._limits.write_s, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        self._inner.resume_writing()

    # --- what the client does not say -------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._limits.head_s, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._close(SLOW if self._head_bytes else b"")

    def _close(self, farewell: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(farewell)
            self._transport.close()
