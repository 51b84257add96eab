"""uvicorn around the gateway: its limits, and a stop that keeps every promise and has an end."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from app.gateway import Gateway
from app.serving.connections import ConnectionLimits, limited
from app.settings import Settings

__all__ = ["GatewayServer", "run"]

log = logging.getLogger("triggerwall.server")

ANSWERING = 0.8  # share of the time to stop that requests under way have; the rest is for threads and store
FILES = 256  # open files besides one for each connection and one for each form that is spooled to disk
ONE_READ = 256 * 1024  # bytes that asyncio reads at once, at most
LAST_WORDS_S = 0.2
CLOSE = (b"connection", b"close")
FORCED = 1  # exit code of a stop that did not end by itself


def _force() -> None:
    """The end of a stop that hangs, most likely in a call to the device that does not return."""
    log.critical("the gateway did not stop in time and is ended now: something does not return")
    logging.shutdown()
    os._exit(FORCED)


def run(app: Any, gateway: Gateway, sockets: Sequence[socket.socket] | None = None) -> bool:
    """Serve `app`, the ASGI application of `gateway`, until SIGTERM or SIGINT; False where it did not start.

    Listens on `sockets`, else where the settings say.
    """
    _raise_file_limit(gateway.settings.max_connections)
    server = GatewayServer(app, gateway)
    listening = _sockets(server.config, gateway.settings) if sockets is None else list(sockets)
    server.run(listening)
    return server.started


def _sockets(config: uvicorn.Config, settings: Settings) -> list[socket.socket] | None:
    """What to listen on; None leaves the one public port to the server."""
    if settings.admin_port is None:
        return None
    admin = uvicorn.Config(config.app, host=settings.admin_host, port=settings.admin_port, log_config=None)
    return [config.bind_socket(), admin.bind_socket()]


def _raise_file_limit(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    limits = ConnectionLimits(
        settings.max_connections, settings.head_timeout_s, settings.max_head_bytes, settings.write_timeout_s
    )
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=limited(limits),  # type: ignore[arg-type]  # uvicorn calls it, and asks no more of it
        ws="none",
        h11_max_incomplete_event_size=settings.max_head_bytes + ONE_READ,  # `limited` is stricter
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(ANSWERING * settings.stop_timeout_s)),
    )


def settle_memory() -> None:
    """Take what is there now out of the collector's sight. Of half a million objects, most of them torch's,
    every full collection looked at each: a third of a second in which nothing else ran.

    Of that, what is replaced later and is in a cycle is never freed: the first calibration's engine, and
    nothing after it, as what comes after the start is collected as ever.
    """
    gc.collect()
    gc.freeze()


class GatewayServer(uvicorn.Server):
    """On SIGTERM or SIGINT: not ready at once, but serving for `stop_notice_s` more, so that load balancers
    notice; then no new connections, every request under way answered, and the end. The process exits
    with 0, or with `FORCED` where that took longer than `stop_timeout_s`. A second signal skips the notice,
    a third (SIGINT) the answers."""

    def __init__(self, app: Any, gateway: Gateway, force: Callable[[], None] = _force) -> None:
        """`force` is called where the stop is overdue. It ends the process: who shares one gives another."""
        self._gateway, self._settings, self._force = gateway, gateway.settings, force
        super().__init__(_config(app, gateway.settings))
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again at the end, for an exit code other than 0.
        if self._stop_at is None:
            self._gateway.stopping = True
            self._stop_at = time.monotonic() + self._settings.stop_notice_s
            # Kept connections end with their next answer, so that none is closed under a request.
            self.config.encoded_headers.append(CLOSE)
            self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
            limit = threading.Timer(self._settings.stop_timeout_s, self._force)
            limit.daemon = True
            limit.start()
        elif not self.should_exit:
            self.should_exit = True
        elif sig == signal.SIGINT:
            self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            settle_memory()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await asyncio.sleep(LAST_WORDS_S)  # connections just made get to say what they want
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)
