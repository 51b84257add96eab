"""Gateways on one database: what one activates the others enforce, within the bound or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.follower import Follower, StaleCalibration
from app.storage.errors import StoreError
from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import gateway_of, slug
from tests.app.storage.conftest import postgres  # noqa: F401  (a fixture)
from tests.app.storage.postgres import Postgres
from tests.app.tiny import form, pngs


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def follower(answers: list[Exception | None], clock: Clock, *, bounded: bool = True) -> Follower:
    async def follow() -> None:
        clock.now += 0.5  # the answer takes its time
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    found = Follower(follow, lag=10, bounded=bounded, clock=clock)
    found._tasks = [asyncio.Future(loop=asyncio.new_event_loop())]  # type: ignore[list-item]  # as if started
    return found


def test_fresh_from_when_it_asked_not_from_when_it_was_answered() -> None:
    clock = Clock()
    asked = follower([None], clock)
    asyncio.run(asked.ask())
    clock.now = 110.0
    asked.require_fresh()
    clock.now = 110.25
    with pytest.raises(StaleCalibration, match=r"for 10 s .* most is 10 s"):
        asked.require_fresh()


def test_stale_after_failures_and_fresh_again_after_an_answer() -> None:
    clock = Clock()
    asked = follower([StoreError("down"), RuntimeError("odd"), None], clock)
    asyncio.run(asked.ask())
    asyncio.run(asked.ask())
    clock.now = 111.0
    with pytest.raises(StaleCalibration):
        asked.require_fresh()
    asyncio.run(asked.ask())
    asked.require_fresh()


def test_a_hint_makes_it_ask_at_once() -> None:
    """It would ask by itself after 720 s."""
    asked, hinted = asyncio.Event(), asyncio.Event()

    async def follow() -> None:
        if hinted.is_set():
            asked.set()

    async def hints() -> AsyncIterator[None]:
        if not hinted.is_set():
            hinted.set()
            yield
        await asyncio.Event().wait()

    async def scenario() -> None:
        follower = Follower(follow, lag=3600, bounded=True, hints=hints)
        await follower.start()
        await asyncio.wait_for(asked.wait(), 20)
        await follower.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [StoreError("gone"), RuntimeError("odd")])
def test_hints_that_end_are_asked_for_again(error: Exception) -> None:
    """Nothing of it disturbs the asking."""
    connected, asked, again = 0, 0, asyncio.Event()

    async def hints() -> AsyncIterator[None]:
        nonlocal connected
        connected += 1
        if connected == 3:
            again.set()
        yield
        raise error

    async def follow() -> None:
        nonlocal asked
        asked += 1

    async def scenario() -> None:
        follower = Follower(follow, lag=0.05, bounded=True, hints=hints)
        await follower.start()
        await asyncio.wait_for(again.wait(), 20)
        before = asked
        while asked < before + 3:
            await asyncio.sleep(0.01)
        await follower.close()

    asyncio.run(asyncio.wait_for(scenario(), 40))


def test_alone_with_its_database_it_goes_on() -> None:
    clock = Clock()
    alone = follower([StoreError("down")], clock, bounded=False)
    asyncio.run(alone.ask())
    clock.now = 1e6
    alone.require_fresh()


def until(reached: Callable[[], Any]) -> None:
    for _ in range(1000):
        if reached():
            return
        time.sleep(0.02)
    raise TimeoutError


def active(client: TestClient) -> Any:
    found = client.get("/info").json()["calibration"]
    return found and found["id"]


def calibrate(client: TestClient, seed: int) -> str:
    answer = client.post("/calibrate", files=form(pngs(40, seed=seed)))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_what_one_gateway_activates_the_other_enforces(make_client: MakeClient) -> None:
    one, other = make_client(calibration_lag_s=0.5), make_client(calibration_lag_s=0.5)
    assert other.post("/classify", files=form(pngs(1))).status_code == 503
    first = calibrate(one, 1)
    until(lambda: active(other) == first)
    assert other.post("/classify", files=form(pngs(1))).json()["calibration"] == first
    second = calibrate(other, 2)
    until(lambda: active(one) == second)
    assert one.post(f"/calibrations/{first}/activate").status_code == 200
    until(lambda: active(other) == first)
    history = one.get("/calibrations").json()["activations"]
    assert [each["calibration"] for each in history] == [first, second, first]  # following activates nothing


def test_postgresql_s_word_is_enough(make_client: MakeClient, postgres: Postgres) -> None:  # noqa: F811
    """By themselves they would ask every 720 s."""
    settings = {"database_url": postgres.create(), "calibration_lag_s": 3600}
    one, other = make_client(**settings), make_client(**settings)
    first = calibrate(one, 1)
    until(lambda: active(other) == first)
    second = calibrate(other, 2)
    until(lambda: active(one) == second)
    assert one.post("/classify", files=form(pngs(1))).json()["calibration"] == second


def test_a_database_that_is_away_for_too_long(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(calibration_lag_s=0.5)
    calibrate(client, 1)
    gateway = gateway_of(client)
    gateway.follower._bounded = True  # as with a database that others use
    assert client.post("/classify", files=form(pngs(1))).status_code == 200

    def down() -> None:
        raise StoreError("the store failed")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.store, "active_id", down)
        until(lambda: client.get("/readyz").status_code == 503)
        refused = client.post("/classify", files=form(pngs(1)))
        assert (refused.status_code, slug(refused)) == (503, "calibration-stale")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/livez").status_code == 200
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.post("/classify", files=form(pngs(1))).status_code == 200


@pytest.mark.parametrize(
    ("meanwhile", "status"),
    [("confirmed", 200), ("nothing", 503), ("replaced", 503)],
)
def test_an_answer_too_late_for_what_judged_it(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, meanwhile: str, status: int
) -> None:
    """Judging takes longer than the bound. The calibration has been confirmed since, or has not, or another
    is enforced by now: then nobody knows for how long."""
    client = make_client(calibration_lag_s=3600)
    calibrate(client, 1)
    gateway, clock = gateway_of(client), Clock()
    follower, firewall, inspect = gateway.follower, gateway.firewall, gateway.firewall.inspect_apart
    follower._bounded, follower._clock, follower._confirmed = True, clock, clock.now

    def slowly(*args: Any, **kwargs: Any) -> Any:
        found = inspect(*args, **kwargs)
        clock.now += 3601
        if meanwhile != "nothing":
            follower._confirmed = clock.now
        if meanwhile == "replaced":
            assert firewall.guard is not None
            firewall.enforce(replace(firewall.guard, id="another"))
        return found

    monkeypatch.setattr(firewall, "inspect_apart", slowly)
    answer = client.post("/classify", files=form(pngs(1)))
    assert answer.status_code == status
    if status == 503:
        assert slug(answer) == "calibration-stale"
        assert "results" not in answer.json()


def test_a_calibration_that_does_not_fit_is_found_so_once(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_client(calibration_lag_s=0.5)
    calibrate(one, 1)
    other = make_client(calibration_lag_s=0.5, spc_scales=(3.0, 5.0))
    assert other.get("/readyz").status_code == 503
    calibrator, tries = gateway_of(other).calibrator, []
    follow, restore = calibrator.follow, calibrator.restore

    async def counted() -> None:
        tries.append("restore")
        await restore()

    monkeypatch.setattr(calibrator, "restore", counted)
    for _ in range(3):
        other.portal.call(follow)  # type: ignore[union-attr]
    assert tries == []
    newer = calibrate(one, 2)
    until(lambda: tries)
    assert newer in other.get("/readyz").json()["detail"]
