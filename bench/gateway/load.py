"""Open-loop load over HTTP/1.1: requests leave when they are due, whether or not earlier ones were answered.

Latency counts from the moment a request was due, not from when it got a connection: a server that stalls
does not get fewer requests for it (no coordinated omission). The client is these few lines on asyncio's
streams, since it shares the machine with the server, and the common clients take more CPU for a request than
what is measured.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Outcome", "arrivals", "as_request", "closed_loop", "open_loop"]


@dataclass
class Outcome:
    """Of one run: `latencies` in seconds of the requests answered 200, the number of others by status (0: no
    answer), and the seconds from the first request to the last answer."""

    latencies: list[float] = field(default_factory=list)
    failed: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0

    def count(self, status: int, latency: float) -> None:
        if status == 200:
            self.latencies.append(latency)
        else:
            self.failed[status] = self.failed.get(status, 0) + 1

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def as_request(url: str, path: str, content_type: str, body: bytes) -> bytes:
    """One POST, ready to be sent on a connection that stays open."""
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of a Poisson process of `rate` a second, from 0 to `seconds`."""
    draw, times, now = random.Random(seed), [], 0.0
    while (now := now + draw.expovariate(rate)) < seconds:
        times.append(now)
    return times


class _Connections:
    """Connections to one server, as many as are in use at once."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> int:
        """Send one request, read its whole answer, and return the status; 0 for a connection that broke."""
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        except (OSError, asyncio.IncompleteReadError, ValueError):
            writer.close()
            return 0
        self._idle.append((reader, writer))
        return int(head[9:12])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._address.hostname, self._address.port)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


async def open_loop(url: str, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> Outcome:
    """Send `requests` in turn, `rate` a second in the mean, for `seconds`; then await what is under way."""
    connections, outcome = _Connections(url), Outcome()
    started = time.perf_counter()

    async def one(request: bytes, due: float) -> None:
        try:
            status = await connections.ask(request)
        except OSError:  # no connection
            status = 0
        outcome.count(status, time.perf_counter() - started - due)

    tasks = []
    for number, due in enumerate(arrivals(rate, seconds, seed)):
        await asyncio.sleep(max(0.0, due - (time.perf_counter() - started)))
        tasks.append(asyncio.create_task(one(requests[number % len(requests)], due)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - started
    connections.close()
    return outcome


async def closed_loop(url: str, requests: Sequence[bytes], clients: int, seconds: float) -> Outcome:
    """`clients` who each send the next request when they have an answer: as fast as the server goes."""
    connections, outcome = _Connections(url), Outcome()
    started = time.perf_counter()

    async def client(number: int) -> None:
        while (now := time.perf_counter()) - started < seconds:
            status = await connections.ask(requests[number % len(requests)])
            outcome.count(status, time.perf_counter() - now)
            number += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    outcome.seconds = time.perf_counter() - started
    connections.close()
    return outcome
