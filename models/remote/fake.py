"""An endpoint that is not there: answers in memory, and fails as told. For tests, and for trying things out.

    server = FakeServer(probabilities, faults=["down", "slow"])
    classifier = load_remote(spec, Connection(), server.transport())

The first request meets the first fault, and so on; `None` is none, and after the last all is well.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Literal

import httpx
import numpy as np
import numpy.typing as npt

from models.open_inference import HEADER_LENGTH, NamedTensor, read, read_tensors, write

__all__ = ["FAULTS", "FakeServer", "Fault"]

Fault = Literal[
    "down", "busy", "error", "forbidden", "redirect", "slow", "drip", "cut", "garbage", "no-json", "empty",
    "short-batch", "long-batch", "wide", "out-of-range", "negative", "nan", "sum", "text", "endless",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
Answer = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
FOREVER = 3600.0
TEXT = {
    "outputs": [{"name": "out", "datatype": "INT64", "shape": [1], "data": ["?"]}],
    "predictions": ["?"],
}


class FakeServer:
    """Speaks v2 at any path: `answer` gets the input tensor (B, ...) and gives probabilities (B, K), or
    labels (B,). `requests` holds what was asked: rows and headers."""

    def __init__(
        self, answer: Answer, faults: Iterable[Fault | None] = (), max_batch: int | None = None
    ) -> None:
        self.answer, self.max_batch = answer, max_batch
        self.faults = list(faults)
        self.requests: list[tuple[int, httpx.Headers]] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.pop(0) if self.faults else None
        body = await request.aread()
        images, binary = self._images(body, request.headers)
        self.requests.append((len(images), request.headers))
        if self.max_batch is not None and len(images) > self.max_batch:
            return httpx.Response(400, json={"error": f"at most {self.max_batch} images"})
        refusal = await self._refusal(fault, request)
        if refusal is not None:
            return refusal
        return self._response(self._spoilt(self.answer(images), fault), binary, fault)

    def _images(self, body: bytes, headers: httpx.Headers) -> tuple[npt.NDArray[Any], bool]:
        message, rest = read(body, headers.get(HEADER_LENGTH))
        if "inputs" not in message:  # a JSON interface: one list, of nested pixels
            (rows,) = [value for value in message.values() if isinstance(value, list)]
            return np.array(rows), False
        (tensor,) = read_tensors(message["inputs"], rest)
        return tensor.values, bool(rest)

    async def _refusal(self, fault: Fault | None, request: httpx.Request) -> httpx.Response | None:
        """The answers that do not depend on what was asked."""
        if fault == "down":
            raise httpx.ConnectError("connection refused", request=request)
        if fault == "slow":
            await asyncio.sleep(FOREVER)
        plain = {
            "busy": httpx.Response(503, headers={"Retry-After": "0"}),
            "error": httpx.Response(500, json={"error": "secret inner workings"}),
            "forbidden": httpx.Response(403, json={"error": "who are you"}),
            "redirect": httpx.Response(307, headers={"Location": "http://elsewhere.example/"}),
            "drip": httpx.Response(200, stream=Stream(0.01, math.inf)),
            "endless": httpx.Response(200, stream=Stream(0.0, math.inf, b" " * 65536)),
            "text": httpx.Response(200, json=TEXT),
            "no-json": httpx.Response(200, content=b"<html>welcome</html>"),
            "empty": httpx.Response(200, content=b""),
            "garbage": httpx.Response(200, content=b"\xff\x00" * 40, headers={HEADER_LENGTH: "9999"}),
        }
        return plain.get(fault or "")

    def _spoilt(self, found: npt.NDArray[Any], fault: Fault | None) -> npt.NDArray[Any]:
        """`found` as a server that is wrong about it would say it."""
        found = found.copy()
        if fault == "short-batch":
            return found[:-1]
        if fault == "long-batch":
            return np.concatenate([found, found[:1]])
        if fault == "wide":
            return np.concatenate([found, found], axis=-1) if found.ndim > 1 else np.stack([found, found], 1)
        if fault in ("out-of-range", "negative"):
            found[-1] = 10_000 if fault == "out-of-range" else -1
        if fault == "nan":
            found = found.astype(np.float64)
            found[-1] = math.nan
        if fault == "sum":
            found = found * 0.5
        return found

    def _response(self, found: npt.NDArray[Any], binary: bool, fault: Fault | None) -> httpx.Response:
        kind = {"f": "FP32", "i": "INT64"}[found.dtype.kind]
        tensor = NamedTensor("out", kind, found)
        body, end = write({"model_name": "fake"}, [tensor], "outputs", {"out"} if binary else ())
        if end is None:  # both interfaces at once
            body = json.dumps({**json.loads(body), "predictions": found.tolist()}).encode()
        headers = {} if end is None else {HEADER_LENGTH: str(end)}
        if fault == "cut":
            body = body[: len(body) * 2 // 3]
        return httpx.Response(200, content=body, headers=headers)


class Stream(httpx.AsyncByteStream):
    """`chunk` again and again, `pause` seconds apart."""

    def __init__(self, pause: float, times: float, chunk: bytes = b" ") -> None:
        self.pause, self.times, self.chunk = pause, times, chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = 0
        while sent < self.times:
            await asyncio.sleep(self.pause)
            sent += 1
            yield self.chunk
