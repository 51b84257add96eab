"""The load generator against a server whose behaviour is known."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest

from bench.gateway.load import Outcome, arrivals, as_request, closed_loop, open_loop

Load = Callable[[str], Awaitable[Outcome]]


async def served(load: Load, delay: float, refuse_every: int = 0) -> Outcome:
    """`load` on a server that answers one request after another, each after `delay` seconds."""
    one_at_a_time, seen = asyncio.Lock(), 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
            async with one_at_a_time:
                await asyncio.sleep(delay)
            seen += 1
            status = b"503 No" if refuse_every and seen % refuse_every == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        return await load(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


def request(url: str) -> list[bytes]:
    return [as_request(url, "/x", "image/png", b"body")]


def test_arrivals_are_a_poisson_process() -> None:
    times = arrivals(rate=100, seconds=50, seed=1)
    assert times == sorted(times) == arrivals(100, 50, 1)
    assert len(times) == pytest.approx(5000, rel=0.06)  # four standard deviations
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance**0.5 == pytest.approx(mean, rel=0.1)  # exponential: as wide as long
    assert arrivals(100, 50, 2) != times


def test_a_request_is_one_that_http_knows() -> None:
    assert as_request("http://127.0.0.1:80", "/x", "image/png", b"ab") == (
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: image/png\r\nContent-Length: 2\r\n\r\nab"
    )


def test_latency_counts_from_when_a_request_was_due() -> None:
    """At twice the rate that the server can do, the queue grows: so does latency, to about half the run."""
    found = asyncio.run(served(lambda url: open_loop(url, request(url), rate=100, seconds=0.6, seed=0), 0.02))
    assert len(found.latencies) == len(arrivals(100, 0.6, 0))
    assert found.seconds >= 0.02 * len(found.latencies)
    assert found.latencies[-1] > 10 * 0.02


def test_what_is_refused_is_no_answer() -> None:
    found = asyncio.run(served(lambda url: closed_loop(url, request(url), 4, 0.3), 0.001, refuse_every=3))
    assert found.failed[503] == pytest.approx(len(found.latencies) / 2, abs=1)
    assert found.rate == pytest.approx(len(found.latencies) / found.seconds)


def test_a_server_that_is_not_there_is_counted() -> None:
    found = asyncio.run(open_loop("http://127.0.0.1:9", [b"x"], rate=100, seconds=0.1, seed=0))
    assert not found.latencies
    assert found.failed == {0: len(arrivals(100, 0.1, 0))}
