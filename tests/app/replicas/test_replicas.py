"""An ingress and its scorers in one process; what goes between them is pickled, as between machines."""

import asyncio
import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from app.admission import Closed, DeadlineExceeded, Overloaded
from app.assembly import build_firewall
from app.follower import StaleCalibration
from app.gateway import DeviceRequest, Gateway, Judged, OutOfOrder
from app.isolation import Unjudged
from app.main import create_app
from app.policy import Mode
from app.replicas.dispatcher import Dispatcher, ScorerLost
from app.replicas.firewall import RemoteFirewall
from app.replicas.scorer import Benign, OtherClassifier, Scorer, Work
from app.settings import Settings
from app.worker import WorkerDied
from tests.app.conftest import LOOPBACK, MakeClient, MakeSettings
from tests.app.routes.test_classify import slug
from tests.app.tiny import form, pngs, write_bundle


def sent(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


class Replicas:
    """Scorers asked in turn, and an ingress before them. A scorer in `down` is lost with what it is asked."""

    def __init__(self, settings: Settings, bundles: list[Path]) -> None:
        self.scorers = [Scorer(settings.model_copy(update={"bundle": bundle})) for bundle in bundles]
        self.down: set[int] = set()
        self.asked: list[int] = []
        self.delay = 0.0
        self.measured = 0
        firewall = build_firewall(settings, partial(RemoteFirewall, self.measure, "elsewhere"))
        self.classifier = firewall.classifier
        dispatcher = Dispatcher(self.judge, firewall.classifier.info.digest, max_waiting=settings.queue_rows)
        self.client = TestClient(create_app(settings, firewall, dispatcher), base_url=LOOPBACK)

    def __enter__(self) -> "Replicas":
        self.client.__enter__()
        for scorer in self.scorers:
            self.call(scorer.start)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(asyncio.sleep, 0)
        for scorer in self.scorers:
            self.call(scorer.close)
        self.client.__exit__(None, None, None)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        assert self.client.portal is not None
        return self.client.portal.call(function, *arguments)

    async def judge(self, work: Work) -> Judged | Exception:
        number = len(self.asked) % len(self.scorers)
        self.asked.append(number)
        await asyncio.sleep(self.delay)
        if number in self.down:
            raise ScorerLost("killed")
        answer: Judged | Exception = sent(await self.scorers[number].judge(sent(work)))
        return answer

    def measure(self, benign: Benign) -> Any:
        self.measured += len(benign.images)
        return sent(self.call(self.scorers[0].measure, sent(benign)))

    def calibrate(self, seed: int = 1) -> str:
        """The id of a new calibration, which all scorers follow by now."""
        answer = self.client.post("/calibrate", files=form(pngs(40, seed=seed)))
        assert answer.status_code == 201, answer.text
        for scorer in self.scorers:
            self.call(scorer.gateway.follower.ask)
        return str(answer.json()["id"])

    def classify(self, count: int = 3, **headers: str) -> Any:
        return self.client.post("/classify", files=form(pngs(count, seed=7)), headers=headers)

    def decisions(self) -> list[Any]:
        gateway: Gateway = self.client.app.state.gateway  # type: ignore[attr-defined]
        for _ in range(200):
            if not gateway.recording._recorder._writer.waiting:
                break
            self.call(asyncio.sleep, 0.02)
        self.call(asyncio.sleep, 0.1)
        found: list[Any] = self.client.get("/decisions").json()["decisions"]
        return found


Make = Callable[..., Replicas]
REQUEST = DeviceRequest(torch.zeros(1, 1, 8, 8), full=False)


@pytest.fixture
def make(make_settings: MakeSettings, bundle: Path) -> Iterator[Make]:
    running: list[Replicas] = []

    def make_replicas(bundles: list[Path] | None = None, **overrides: Any) -> Replicas:
        settings = make_settings(**{"decision_flush_ms": 20, "calibration_lag_s": 0.5, **overrides})
        running.append(Replicas(settings, bundles or [bundle, bundle]).__enter__())
        return running[-1]

    yield make_replicas
    for each in running:
        each.__exit__()


def test_answers_as_one_gateway_does(make: Make, make_client: MakeClient) -> None:
    replicas = make(detectors=("profile", "spc"), alpha=0.5)
    id = replicas.calibrate()
    alone = make_client(detectors=("profile", "spc"), alpha=0.5)  # on the same database
    for query in ("", "?full=true"):
        answers = [
            each.post(f"/classify{query}", files=form([*pngs(6, seed=7), b"no image"])).json()
            for each in (replicas.client, alone)
        ]
        assert answers[0]["results"] == answers[1]["results"]
        assert [each["calibration"] for each in answers] == [id, id]
    verdicts = {each["verdict"] for each in answers[0]["results"]}
    assert {"accepted", "rejected"} <= verdicts


def test_no_image_is_judged_or_measured_by_the_ingress(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = make()

    def refuse(_: Any) -> None:
        raise AssertionError("the ingress ran the classifier")

    monkeypatch.setattr(replicas.classifier, "logits", refuse)
    replicas.calibrate()
    assert replicas.measured == 40
    assert replicas.classify().status_code == 200
    assert replicas.asked == [0]
    assert replicas.client.get("/info").json()["device"] == "elsewhere"


def test_another_scorer_is_asked_for_one_that_is_lost_and_each_decision_is_kept_once(make: Make) -> None:
    replicas = make()
    id = replicas.calibrate()
    replicas.down = {0}
    answers = [replicas.classify(2) for _ in range(4)]
    assert [each.status_code for each in answers] == [200] * 4
    assert {each.json()["calibration"] for each in answers} == {id}
    assert replicas.asked == [0, 1] * 4
    kept = replicas.decisions()
    expected = [(each.json()["request_id"], place) for each in answers for place in (0, 1)]
    assert sorted((each["request_id"], each["place"]) for each in kept) == sorted(expected)


def test_without_any_scorer_nothing_is_answered_or_kept(make: Make) -> None:
    replicas = make()
    replicas.calibrate()
    replicas.down = {0, 1}
    answer = replicas.classify()
    assert (answer.status_code, slug(answer), answer.headers["retry-after"]) == (503, "scorer-lost", "1")
    assert len(replicas.asked) == 3
    assert replicas.decisions() == []


def test_a_scorer_of_another_classifier_never_answers(make: Make, bundle: Path, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", seed=5)
    replicas = make([other, bundle])
    replicas.scorers.reverse()  # measured by the right one
    id = replicas.calibrate()
    replicas.scorers.reverse()
    answer = replicas.classify()
    assert (answer.status_code, answer.json()["calibration"], replicas.asked) == (200, id, [0, 1])
    replicas.down = {1}
    answer = replicas.classify()
    assert answer.status_code == 503
    assert slug(answer) in ("classifier-changing", "scorer-lost")


def test_a_scorer_that_cannot_ask_the_database_judges_nothing(make: Make) -> None:
    replicas = make()
    replicas.calibrate()

    def lose(number: int) -> None:
        follower = replicas.scorers[number].gateway.follower
        follower._bounded, follower._confirmed = True, time.monotonic() - 10
        replicas.call(follower.close)

    lose(0)
    assert replicas.classify().status_code == 200
    assert replicas.asked == [0, 1]
    lose(1)
    answer = replicas.classify()
    assert (answer.status_code, slug(answer)) == (503, "calibration-stale")
    assert int(answer.headers["retry-after"]) >= 1


def test_an_activation_reaches_every_scorer(make: Make) -> None:
    replicas = make()
    first = replicas.calibrate(1)
    second = replicas.calibrate(2)
    assert {replicas.classify().json()["calibration"] for _ in range(4)} == {second}
    assert replicas.client.post(f"/calibrations/{first}/activate").status_code == 200
    for scorer in replicas.scorers:
        replicas.call(scorer.gateway.follower.ask)
    assert {replicas.classify().json()["calibration"] for _ in range(4)} == {first}


def test_what_a_scorer_has_no_room_for_is_answered_503(make: Make) -> None:
    replicas = make()
    replicas.calibrate()
    for scorer in replicas.scorers:
        scorer.gateway.batcher.max_waiting = 1
    answer = replicas.classify()
    assert (answer.status_code, slug(answer), answer.headers["retry-after"]) == (503, "overloaded", "1")
    replicas.client.app.state.gateway.batcher.max_waiting = 1  # type: ignore[attr-defined]
    asked = len(replicas.asked)
    assert slug(replicas.classify()) == "overloaded"
    assert len(replicas.asked) == asked  # it was not even decoded


def test_a_deadline_holds_for_a_scorer_that_hangs(make: Make) -> None:
    replicas = make()
    replicas.calibrate()
    replicas.delay = 30.0
    answer = replicas.classify(1, **{"X-Request-Timeout-Ms": "60"})
    assert (answer.status_code, slug(answer)) == (504, "deadline-exceeded")
    assert replicas.client.app.state.gateway.batcher.waiting == 0  # type: ignore[attr-defined]


def test_the_mode_is_that_of_the_settings(make: Make) -> None:
    replicas = make()
    replicas.calibrate()
    answer = replicas.client.post("/mode", json={"mode": "monitor"})
    assert (answer.status_code, slug(answer)) == (409, "conflict")
    assert "mode: monitor" in answer.json()["detail"]
    assert replicas.classify().json()["mode"] == "enforce"


def test_closing_waits_for_what_was_taken() -> None:
    released = asyncio.Event()

    async def judge(work: Work) -> Judged:
        await released.wait()
        raise ScorerLost(work.flow)

    async def scenario() -> None:
        dispatcher = Dispatcher(judge, "digest", max_waiting=10)
        taken = asyncio.ensure_future(dispatcher.submit(REQUEST, 4, flow="somebody"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(dispatcher.close())
        await asyncio.sleep(0.05)
        assert (closing.done(), dispatcher.waiting) == (False, 4)
        with pytest.raises(Closed):
            await dispatcher.submit(REQUEST, 1)
        released.set()
        with pytest.raises(ScorerLost, match="somebody"):
            await taken
        await closing

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "error",
    [
        Overloaded(2.5),
        Closed("shutting down"),
        DeadlineExceeded("late"),
        StaleCalibration("stale"),
        OtherClassifier("other"),
        OutOfOrder("stuck"),
        Unjudged("out-of-memory"),
        WorkerDied("died"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_scorers_refuse_arrives_as_it_was(error: Exception) -> None:
    arrived = sent(error)
    assert type(arrived) is type(error)
    assert (str(arrived), vars(arrived)) == (str(error), vars(error))


def test_a_calibration_that_scorers_cannot_measure_changes_nothing(make: Make, tmp_path: Path) -> None:
    replicas = make([write_bundle(tmp_path / "other", seed=5)])
    answer = replicas.client.post("/calibrate", files=form(pngs(40)))
    assert (answer.status_code, slug(answer)) == (503, "classifier-changing")
    assert replicas.client.get("/calibrations").json()["calibrations"] == []


def test_clocks_of_two_machines_need_not_agree() -> None:
    """What a scorer says of time is taken from when it was asked, whatever its clock shows."""
    ages = []

    async def judge(work: Work) -> Judged:
        ages.append(work.left)
        await asyncio.sleep(0.2)
        return "id", Mode.ENFORCE, -3.0, []

    async def scenario() -> tuple[float, Judged]:
        began = time.monotonic()
        answer = await Dispatcher(judge, "digest", max_waiting=1).submit(REQUEST, deadline=began + 5)
        return began, answer

    began, (_, _, confirmed, _) = asyncio.run(scenario())
    assert began - 3 <= confirmed <= began - 3 + 0.1
    assert 4.9 <= ages[0] <= 5
