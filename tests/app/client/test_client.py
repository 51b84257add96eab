"""The Python client, blocking and asynchronous, against gateways that are busy, gone, or somebody else."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AsyncClient, Client, ClientError, Options, Refused, Result, Unreachable
from app.client.files import batches
from tests.app.service import Service
from tests.app.tiny import CLASSES, form, pngs, write_bundle

Handler = Callable[[httpx.Request], httpx.Response]
Ask = Callable[..., list[Result]]
OVERLOADED = {"type": "urn:triggerwall:problem:overloaded", "title": "Too much is waiting", "detail": "try"}


def blocking(images: Sequence[Any], handler: Handler, progress: Any = None, **options: Any) -> list[Result]:
    with Client("http://gateway", "k", Options(**options), httpx.MockTransport(handler)) as client:
        return client.classify(images, progress)


def asynchronous(
    images: Sequence[Any], handler: Handler, progress: Any = None, **options: Any
) -> list[Result]:
    async def main() -> list[Result]:
        transport = httpx.MockTransport(handler)
        async with AsyncClient("http://gateway", "k", Options(**options), transport) as client:
            return await client.classify(images, progress)

    return asyncio.run(main())


@pytest.fixture(params=[blocking, asynchronous])
def ask(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


def answer(request: httpx.Request) -> httpx.Response:
    """Each image's own bytes, b"7", come back as its label."""
    bodies = request.content.split(b"\r\n\r\n")[1:]
    labels = [int(body.split(b"\r\n")[0]) for body in bodies]
    results = [
        {"verdict": "accepted", "prediction": {"label": label, "name": None, "confidence": None},
         "detections": [], "novelty": 1}
        for label in labels
    ]  # fmt: skip
    return httpx.Response(200, json={"results": results})


def busy(status: int = 503, retry_after: str | None = "0") -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return httpx.Response(status, json={**OVERLOADED, "status": status}, headers=headers)


IMAGES = [str(number).encode() for number in range(50)]


def test_results_are_typed_and_in_order(ask: Ask) -> None:
    steps: list[tuple[int, int]] = []
    results = ask(IMAGES, answer, lambda done, of: steps.append((done, of)), batch=8, concurrency=3)
    assert [each.prediction.label for each in results if each.prediction] == list(range(50))
    assert all(each.accepted for each in results)
    assert results[0].content["novelty"] == 1
    assert steps == [(done, 50) for done in (8, 16, 24, 32, 40, 48, 50)]
    assert ask([], answer) == []


def test_concurrency_is_bounded(ask: Ask) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slowly(request: httpx.Request) -> httpx.Response:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return answer(request)

    ask(IMAGES, slowly, batch=2, concurrency=3)
    assert most <= 3
    if ask is blocking:  # the asynchronous mock runs in one thread
        assert most > 1


def test_key_deadline_and_full_are_sent(ask: Ask) -> None:
    def look(request: httpx.Request) -> httpx.Response:
        assert request.headers["x-api-key"] == "k"
        assert 8000 < int(request.headers["x-request-timeout-ms"]) <= 9000
        assert request.url == "http://gateway/classify?full=true"
        return answer(request)

    assert len(ask(IMAGES[:2], look, deadline=9, full=True)) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_be_tried_again_is(ask: Ask, status: int) -> None:
    answers = [busy(status), busy(status)]
    found = ask(IMAGES[:3], lambda request: answers.pop() if answers else answer(request))
    assert len(found) == 3
    assert answers == []


def test_retry_after_is_waited_for(ask: Ask) -> None:
    times: list[float] = []

    def once(request: httpx.Request) -> httpx.Response:
        times.append(time.monotonic())
        return busy(retry_after="1") if len(times) == 1 else answer(request)

    ask(IMAGES[:1], once)
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("status", "retry_after", "attempts"),
    [
        (503, "0", 3),  # retries=2
        (429, "0", 3),
        (503, None, 1),  # nobody said that trying again helps: not calibrated, for instance
        (503, "999", 1),  # not within the deadline
        (502, "0", 1),
        (422, "0", 1),
    ],
)
def test_and_then_no_longer(ask: Ask, status: int, retry_after: str | None, attempts: int) -> None:
    calls: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return busy(status, retry_after)

    with pytest.raises(Refused, match="Too much is waiting: try") as raised:
        ask(IMAGES[:1], refuse, retries=2)
    assert len(calls) == attempts
    assert (raised.value.status, raised.value.type) == (status, OVERLOADED["type"])


@pytest.mark.parametrize(("status", "says"), [(500, True), (503, True), (422, False)])
def test_failures_of_the_gateway_name_the_request_that_its_log_knows(
    ask: Ask, status: int, says: bool
) -> None:
    problem = {"title": "It failed", "detail": "see the log", "request_id": "0af7"}
    with pytest.raises(Refused) as raised:
        ask(IMAGES[:1], lambda _: httpx.Response(status, json=problem), retries=0)
    assert str(raised.value) == "It failed: see the log" + " (request 0af7)" * says


def test_the_deadline_ends_repetitions(ask: Ask) -> None:
    started = time.monotonic()
    with pytest.raises(Refused):
        ask(IMAGES[:1], lambda _: busy(), retries=1000, deadline=0.5)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [(httpx.ConnectError, 1), (httpx.ReadError, 3), (httpx.RemoteProtocolError, 3), (httpx.ReadTimeout, 1)],
)
def test_broken_connections_are_tried_again_and_absent_gateways_told(
    ask: Ask, fault: type[httpx.HTTPError], attempts: int
) -> None:
    calls: list[int] = []

    def broken(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        raise fault("gone")

    with pytest.raises(Unreachable, match="does not answer"):
        ask(IMAGES[:1], broken, retries=2)
    assert len(calls) == attempts


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (404, b"<html>"),
        (200, b'{"results": []}'),
        (200, b'{"answer": 42}'),
        (200, b"[]"),
        (200, b'{"results": [{"verdict": "accepted"}]}'),
    ],
)
def test_what_is_no_gateway(ask: Ask, status: int, body: bytes) -> None:
    with pytest.raises(ClientError):
        ask(IMAGES[:1], lambda _: httpx.Response(status, content=body))


def test_one_failure_ends_the_rest(ask: Ask) -> None:
    calls: list[int] = []

    def second_fails(request: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) > 2:
            time.sleep(0.05)  # a network takes its time, and there the failure is seen
        return busy(422) if len(calls) == 2 else answer(request)

    with pytest.raises(Refused):
        ask(IMAGES, second_fails, batch=1, concurrency=1)
    assert len(calls) < 10


def test_a_file_that_cannot_be_read(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.png cannot be read"):
        ask([tmp_path / "nothing.png"], answer)


def test_batches_are_cut_by_number_and_by_bytes() -> None:
    sizes = [5, 5, 5, 30, 1, 1, 1, 1]
    cut = batches([bytes(size) for size in sizes], most=3, most_bytes=10)
    assert [[len(image) for image in batch] for batch in cut] == [[5, 5], [5], [30], [1, 1, 1], [1]]


def test_it_needs_nothing_but_httpx() -> None:
    heavy = ("torch", "fastapi", "numpy", "pydantic", "sqlalchemy", "detectors", "models")
    script = f"import app.client, sys; print([n for n in {heavy} if n in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# --- a real gateway -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    bundle, data = write_bundle(tmp_path_factory.mktemp("bundle")), tmp_path_factory.mktemp("data")
    limits = {"rate_limit": 30, "rate_burst": 12}
    with Service(
        bundle=bundle, data_dir=data, device="cpu", alpha=0.4, detectors=["spc"], **limits
    ) as running:
        assert running.http.post("/calibrate", files=form(pngs(40, seed=1))).status_code == 201
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, png in enumerate(pngs(40, seed=3)):
        path = tmp_path / CLASSES[number % 4] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not sent")
    return tmp_path


def test_a_folder_is_classified_though_the_gateway_makes_it_wait(service: Service, folder: Path) -> None:
    """41 images, a quota of 12 and 30 a second: some requests are answered 429, and all in the end 200."""
    options = Options(batch=4, concurrency=3)
    with Client(service.url, options=options) as client:
        here = dict(client.classify_folder(folder))
    assert list(here) == sorted(folder.rglob("*.png"))
    assert here[folder / "broken.png"].verdict is None
    assert "not an image" in str(here[folder / "broken.png"].error)
    verdicts = {result.verdict for result in here.values()}
    assert verdicts == {None, "accepted", "rejected"}
    for result in here.values():
        assert (result.prediction is None) == (result.verdict != "accepted")
        assert [found.detector for found in result.detections] == ([] if result.error else ["spc"])

    async def again() -> dict[Path, Result]:
        async with AsyncClient(service.url, options=options) as client:
            return {path: result async for path, result in client.classify_folder(folder)}

    there = asyncio.run(again())
    assert {path: result.verdict for path, result in there.items()} == {
        path: result.verdict for path, result in here.items()
    }
