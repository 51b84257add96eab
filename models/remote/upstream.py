"""Requests to a remote classifier: pooled, timed, retried within the deadline, and given up in good time.

What is worth another attempt: no connection, an attempt that took too long, and 429, 502, 503, 504. Any
other answer would only be the same again.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from models.errors import BadUpstreamAnswer, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from models.remote.breaker import CircuitBreaker
from models.remote.connection import Connection
from models.remote.loop import LoopThread

__all__ = ["Answer", "Ask", "Attempt", "Upstream"]

log = logging.getLogger("triggerwall.upstream")

BUSY = {429, 502, 503, 504}
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
MOST_RETRY_AFTER = 60.0


@dataclass(frozen=True)
class Ask:
    """One request: the body that asks about `rows` images."""

    path: str
    body: bytes
    headers: dict[str, str]
    rows: int


@dataclass(frozen=True)
class Answer:
    body: bytes
    headers: httpx.Headers


@dataclass(frozen=True)
class Attempt:
    """What is told of every attempt: its end (`answered`, `refused`, `unavailable`, `timeout`), how many
    images it asked about, and its seconds."""

    outcome: str
    rows: int
    seconds: float


class Upstream:
    """One endpoint. `on_attempt` and `on_breaker` may be set to follow what happens; both are called on a
    thread of its own."""

    def __init__(
        self, url: str, connection: Connection, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`transport` takes the place of the network."""
        self._url, self.connection = url, connection
        self._transport = transport
        self.on_attempt: Callable[[Attempt], None] = lambda _: None
        self.on_breaker: Callable[[bool], None] = lambda _: None
        self.breaker = CircuitBreaker(connection.breaker_failures, connection.breaker_rest)
        self._thread = LoopThread("upstream")
        self._http: httpx.AsyncClient | None = None
        self._slots: asyncio.Semaphore | None = None

    def ask(self, asks: Sequence[Callable[[], Ask]], time_left: float) -> list[Answer]:
        """The answers, in order, of requests that are made as their turn comes; blocks, `time_left` seconds
        at most. Raises an `UpstreamError`: one that fails fails all."""
        return self._thread.run(self._ask_all(asks, time.monotonic() + time_left))

    def close(self) -> None:
        if self._http is not None:
            self._thread.run(self._http.aclose())
            self._http = None
        self._thread.close()

    async def _ask_all(self, asks: Sequence[Callable[[], Ask]], until: float) -> list[Answer]:
        self.breaker.admit()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(ask, until)) for ask in asks]
        except* UpstreamError as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, make: Callable[[], Ask], until: float) -> Answer:
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.connection.concurrency)
        async with self._slots:
            return await self._persist(make(), until)

    async def _persist(self, ask: Ask, until: float) -> Answer:
        failures = 0
        while True:
            began = time.monotonic()
            try:
                return await self._attempt(ask, until)
            except (UpstreamUnavailable, UpstreamTimeout) as error:
                failures += 1
                # A caller in a hurry says nothing about the server.
                if not isinstance(error, UpstreamTimeout) or until - began >= self.connection.timeout:
                    self._failed()
                pause = self._pause(failures, getattr(error, "asked_to_wait", 0.0))
                over = failures > self.connection.retries or self.breaker.is_open
                if over or time.monotonic() + pause >= until:
                    raise
                await asyncio.sleep(pause)

    def _pause(self, failures: int, asked_for: float) -> float:
        """Seconds before the next attempt: random, so that many who failed together do not come back
        together, and no less than the server asked for."""
        most = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
        return asked_for + random.uniform(0, most)

    def _failed(self) -> None:
        before = self.breaker.is_open
        self.breaker.failed()
        if self.breaker.is_open and not before:
            log.error("the remote classifier has failed %d times in a row", self.connection.breaker_failures)
            self.on_breaker(True)

    def _succeeded(self) -> None:
        if self.breaker.is_open:
            log.warning("the remote classifier answers again")
            self.on_breaker(False)
        self.breaker.succeeded()

    async def _attempt(self, ask: Ask, until: float) -> Answer:
        started = time.monotonic()
        if started >= until:
            raise UpstreamTimeout("there was no time left to ask the classifier behind this gateway")
        outcome = "timeout"
        try:
            async with asyncio.timeout(min(self.connection.timeout, until - started)):
                answer = await self._send(ask)
            outcome = "answered"
            return answer
        except TimeoutError:
            raise UpstreamTimeout("the classifier behind this gateway did not answer in time") from None
        except httpx.DecodingError as error:
            outcome = "refused"
            raise BadUpstreamAnswer(
                "the classifier behind this gateway sent an answer that is damaged"
            ) from error
        except httpx.HTTPError as error:
            outcome = "unavailable"
            log.warning("the remote classifier cannot be reached: %r", error)
            raise UpstreamUnavailable("the classifier behind this gateway cannot be reached") from None
        except UpstreamUnavailable:
            outcome = "unavailable"
            raise
        except BadUpstreamAnswer:
            outcome = "refused"
            raise
        finally:
            self.on_attempt(Attempt(outcome, ask.rows, time.monotonic() - started))

    async def _send(self, ask: Ask) -> Answer:
        url = self._url + ask.path
        async with self._client().stream("POST", url, content=ask.body, headers=ask.headers) as response:
            body = await self._body(response)
        if response.status_code in BUSY:
            log.warning("the remote classifier answered %d", response.status_code)
            raise UpstreamUnavailable(
                f"the classifier behind this gateway answered {response.status_code}", _retry_after(response)
            )
        self._succeeded()  # whatever it says, it is there
        if not response.is_success:
            log.error("the remote classifier answered %d: %r", response.status_code, body[:300])
            raise BadUpstreamAnswer(f"the classifier behind this gateway answered {response.status_code}")
        return Answer(body, response.headers)

    async def _body(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self.connection.max_answer_bytes:
                raise BadUpstreamAnswer("the classifier behind this gateway answered with far too much")
        return bytes(body)

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            c = self.connection
            headers = {c.credential_header: c.credential} if c.credential else {}
            verify = ssl.create_default_context(cafile=c.ca_file) if c.ca_file else True
            self._http = httpx.AsyncClient(
                headers=headers,
                verify=verify,
                timeout=None,  # `asyncio.timeout` around an attempt also ends an answer that drips
                limits=httpx.Limits(max_connections=c.concurrency, max_keepalive_connections=c.concurrency),
                follow_redirects=False,  # the credential goes where the operator said
                trust_env=False,
                transport=self._transport,
            )
        return self._http


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks for; 0 where it names none, or a date."""
    text = response.headers.get("retry-after", "")
    return min(float(text), MOST_RETRY_AFTER) if text.isascii() and text.isdigit() else 0.0
