"""Random faults through the whole path: exceptions, no memory, NaN, delays, stuck calls, a killed device
thread, callers that leave, deadlines too short. Whatever comes together, no label leaves that not every
detector has cleared, everybody gets one answer, about their own images, and afterwards all is as before."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from app.gateway import Gateway
from app.main import create_app
from app.settings import Settings
from detectors.base import BasePass, Scores
from tests.app import tiny
from tests.app.test_worker import kill, thread_of
from tests.app.tiny import Mood, encoded, form, in_mood, mood_of, pixels, pngs, write_bundle

DETECTORS = ("spc", "nspc")
MOODS = (None, *Mood)
KINDS = 3  # different images in each mood
HARMLESS = (None, Mood.NO_CROWD, Mood.STUCK, Mood.DETECTOR_SLOW)  # they cost time, and nothing else


class MoodyScorer:
    """A detector that does what an image of the batch tells it to."""

    def __init__(self, inner: Any) -> None:
        self.engine, self.stages, self.inner = inner.engine, inner.stages, inner

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        moods = [mood_of(image) for image in base.images]
        if Mood.DETECTOR_RAISES in moods:
            raise RuntimeError("a detector's bad mood")
        if Mood.DETECTOR_SLOW in moods:
            time.sleep(0.01)
        scores = self.inner.score(base, thresholds)
        lost = torch.tensor([mood is Mood.DETECTOR_NAN for mood in moods])
        return Scores(scores.values.masked_fill(lost, float("nan")), scores.exact)


class Proof:
    """One gateway with its event loop, and what it says of each image when nothing goes wrong."""

    def __init__(self, directory: Path, failure: str) -> None:
        bundle = write_bundle(directory / "bundle", kind="moody")
        self.settings = Settings(
            bundle=bundle, data_dir=directory / "data", device="cpu", alpha=0.4, detectors=DETECTORS,
            batch_delay_ms=5,
            on_detector_failure=failure, stuck_after_s=60, decode_threads=2, remote_timeout_s=1,
        )  # fmt: skip
        self.app = create_app(self.settings)
        self.gateway: Gateway = self.app.state.gateway
        self.runner = asyncio.Runner()
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        await self.gateway.start()
        transport = httpx.ASGITransport(self.app, client=("127.0.0.1", 1))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=30)
        answer = await self.http.post("/calibrate", files=form(pngs(60, seed=1)))
        assert answer.status_code == 201, answer.text
        images = [
            (mood, in_mood(image, mood) if mood else image)
            for mood in MOODS
            for image in pixels(KINDS, seed=50 + MOODS.index(mood))
        ]
        self.pool = [(mood, encoded(image)) for mood, image in images]
        firewall = self.gateway.firewall
        self.expected: list[Any] = []
        for mood, image in images:
            batch = torch.from_numpy(image / 255.0)[None, None].float()
            self.expected.append(firewall.inspect(batch)[1][0] if mood in HARMLESS else None)
        guard = firewall.guard
        assert guard is not None
        watches = [replace(watch, scorer=MoodyScorer(watch.scorer)) for watch in guard.watches]
        firewall.enforce(replace(guard, watches=tuple(watches)))

    async def end(self) -> None:
        await self.http.aclose()
        await self.gateway.close()


@pytest.fixture(scope="module", params=[("reject", 1), ("error", 1), ("error", 3)])
def proof(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    failure, lanes = request.param
    before, tiny.STUCK_S = tiny.STUCK_S, 0.05
    with pytest.MonkeyPatch.context() as patch:  # this network is not traced, and would have one
        patch.setattr("app.gateway.lanes_for", lambda *_: lanes)
        proof = Proof(tmp_path_factory.mktemp(failure), failure)
    assert proof.gateway.worker.lanes == lanes
    yield proof
    proof.runner.run(proof.end())
    proof.runner.close()
    tiny.STUCK_S = before


images = st.lists(st.integers(0, len(MOODS) * KINDS - 1), min_size=1, max_size=4)
deadlines = st.sampled_from([None, None, None, 1, 20])
leavings = st.sampled_from([None, None, 0.0, 0.004, 0.02])
requests = st.lists(
    st.tuples(images, deadlines, leavings),
    min_size=1,
    max_size=7,
)  # the images, the deadline in ms, and when the caller leaves, in seconds


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests, st.sampled_from([None, None, 0.0, 0.003, 0.01]))
def test_no_fault_lets_a_label_out_or_an_answer_go_missing(
    proof: Proof, asked: Any, killed: float | None
) -> None:
    proof.runner.run(_scene(proof, asked, killed))


async def _scene(proof: Proof, asked: Any, killed: float | None) -> None:
    tasks = [asyncio.create_task(_ask(proof, images, deadline)) for images, deadline, _ in asked]
    leaving = [
        asyncio.create_task(_leave(task, after)) for task, (_, _, after) in zip(tasks, asked, strict=True)
    ]
    if killed is not None:
        await asyncio.sleep(killed)
        worker = proof.gateway.worker
        kill(thread_of(worker, 0 if worker.lanes == 1 else 1))
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    await asyncio.gather(*leaving)
    for answer, (images, deadline, left) in zip(answers, asked, strict=True):
        if isinstance(answer, asyncio.CancelledError):
            assert left is not None
        else:
            assert isinstance(answer, httpx.Response), answer
            check(proof, images, answer, hurried=deadline is not None, killed=killed is not None)
    await _all_is_as_before(proof)


async def _ask(proof: Proof, images: list[int], deadline: int | None) -> httpx.Response:
    headers = {} if deadline is None else {"X-Request-Timeout-Ms": str(deadline)}
    return await proof.http.post("/classify", files=form([proof.pool[n][1] for n in images]), headers=headers)


async def _leave(task: asyncio.Task[Any], after: float | None) -> None:
    if after is not None:
        await asyncio.sleep(after)
        task.cancel()


async def _all_is_as_before(proof: Proof) -> None:
    while proof.gateway.worker.busy_for() > 0 or proof.gateway.batcher.waiting > 0:
        await asyncio.sleep(0.002)
    healthy = list(range(KINDS))
    check(proof, healthy, await _ask(proof, healthy, None), hurried=False, killed=False)
    assert (await proof.http.get("/livez")).status_code == 200
    assert proof.gateway.batcher.waiting == 0


def check(proof: Proof, images: list[int], answer: httpx.Response, *, hurried: bool, killed: bool) -> None:
    if answer.status_code != 200:
        kind = answer.json()["type"].rpartition(":")[2]
        guilty = all(proof.pool[n][0] not in HARMLESS for n in images)
        allowed = {"deadline-exceeded", "overloaded"} if hurried else set()
        if killed or (guilty and proof.settings.on_detector_failure == "error"):
            allowed.add("not-judged")
        assert kind in allowed, answer.text
        assert "prediction" not in answer.text
        return
    results = answer.json()["results"]
    assert len(results) == len(images)
    for number, result in zip(images, results, strict=True):
        prediction, expected = result["prediction"], proof.expected[number]
        if prediction is not None:  # a label is out
            assert result["verdict"] == "accepted"
            assert [found["detector"] for found in result["detections"]] == list(DETECTORS)
            assert not any(found["suspicious"] for found in result["detections"])
        if expected is None:  # the image makes somebody fail
            assert prediction is None
        elif "error" in result:  # the thread was killed under it, or its caller's deadline passed
            assert killed or hurried
            assert prediction is None
        else:
            assert result["verdict"] == expected.verdict
            if prediction is not None:  # and it is its own
                assert prediction["label"] == expected.label
                assert prediction["confidence"] == pytest.approx(expected.confidence, rel=1e-4)


@pytest.mark.parametrize("when", ["waiting", "at the device"])
@pytest.mark.parametrize("position", range(6))
def test_whoever_leaves_a_batch_its_others_get_their_own_answers(
    proof: Proof, position: int, when: str
) -> None:
    async def scene() -> None:
        count = 6
        # The first batch keeps the device busy, so that the others gather behind it.
        stuck = MOODS.index(Mood.STUCK) * KINDS
        first = asyncio.create_task(_ask(proof, [stuck], None))
        await asyncio.sleep(0.02)
        tasks = [asyncio.create_task(_ask(proof, [n % KINDS], None)) for n in range(count)]
        await asyncio.sleep(0.015 if when == "waiting" else 0)
        if when == "at the device":
            while proof.gateway.batcher.waiting == 0:
                await asyncio.sleep(0)
            await first
        tasks[position].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number == position and isinstance(answer, asyncio.CancelledError):
                continue
            assert isinstance(answer, httpx.Response)
            check(proof, [number % KINDS], answer, hurried=False, killed=False)
        await first
        await _all_is_as_before(proof)

    proof.runner.run(scene())
