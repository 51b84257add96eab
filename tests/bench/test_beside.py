"""Two servers asked in turns."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from bench.beside import compare, summary


@pytest.fixture
def servers() -> Iterator[tuple[list[str], Counter[int]]]:
    """Their URLs, and how often each was sent the image; what is no image gets 422."""
    asked: Counter[int] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/classify" and body == b"image":
                asked[self.server.server_address[1]] += 1
            self.send_response(200 if body == b"image" else 422)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    running = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    for server in running:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_address[1]}" for server in running], asked
    for server in running:
        server.shutdown()
        server.server_close()


def test_both_are_asked_equally_often(servers: tuple[list[str], Counter[int]]) -> None:
    urls, asked = servers
    seconds = compare(urls, b"image", rounds=3, clients=2)
    assert [len(each) for each in seconds] == [3, 3]
    assert sorted(asked.values()) == [8, 8]  # with the round that is not counted
    with pytest.raises(httpx.HTTPStatusError):
        compare(urls, b"nothing", rounds=1, clients=1)


def test_the_difference_is_taken_within_a_round() -> None:
    told = summary(["a", "b"], [[0.010, 0.020, 0.090], [0.013, 0.022, 0.094]])
    assert [line.split()[-3:] for line in told.splitlines()] == [
        ["20.00", "ms", "(15.00–55.00)"],
        ["22.00", "ms", "(17.50–58.00)"],
        ["3.00", "ms", "(2.50–3.50)"],
    ]
