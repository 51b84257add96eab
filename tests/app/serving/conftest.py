"""The real server on a real socket, in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.main import create_app
from app.serving.server import GatewayServer
from tests.app.conftest import MakeSettings

Serve = Callable[..., "Address"]


class Address:
    """Where a server listens, and raw conversations with it."""

    def __init__(self, port: int, second_port: int = 0) -> None:
        self.port, self.second_port = port, second_port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, *pieces: bytes, pause: float = 0.0) -> bytes:
        """Send `pieces` with pauses between them; everything that comes until the server closes."""
        with self.connect() as connection:
            try:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            except OSError:
                pass  # it has closed already; what it said is still there
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.fixture
def serve(make_settings: MakeSettings) -> Iterator[Serve]:
    running: list[tuple[Any, threading.Thread]] = []

    def start(ports: int = 1, **overrides: Any) -> Address:
        app = create_app(make_settings(**{"mode": "monitor", **overrides}))
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(ports)]
        server = GatewayServer(app, app.state.gateway)
        thread = threading.Thread(target=server.run, args=(listeners,))
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Address(*(listener.getsockname()[1] for listener in listeners))

    yield start
    for server, thread in running:
        server.should_exit = server.force_exit = True
        thread.join(20)
