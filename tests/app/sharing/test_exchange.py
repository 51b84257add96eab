"""Gateways that tell each other of their traffic: learning and drift of all of them together."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.sharing.exchange import DRIFT, LEARNING, Exchange
from app.storage.errors import StoreError
from app.storage.sketches import SketchStore
from detectors.drift import State
from detectors.reservoir import Reservoir
from tests.app.conftest import MakeClient
from tests.app.routes.test_classify import gateway_of
from tests.app.storage.conftest import Open
from tests.app.storage.postgres import Postgres
from tests.app.test_learner import LEARNING as LEARN
from tests.app.test_learner import learning_of, send, until
from tests.app.tiny import form, pngs
from tests.detectors.test_drift import calibration, monitor, stream
from tests.detectors.test_reservoir import rows


class Watched:
    """A drift watch with a monitor of one calibration, and nothing behind it."""

    def __init__(self, id: str = "c1") -> None:
        self.monitor = monitor(calibration())
        self.guard: Any = SimpleNamespace(id=id)
        info = SimpleNamespace(digest="d")
        self.firewall: Any = SimpleNamespace(
            thresholds="conformal", detectors=(), classifier=SimpleNamespace(info=info)
        )

    def begin(self, _: Any) -> Any:
        return monitor(calibration())

    def see(self, count: int, seed: int, **moved: float) -> None:
        for label, seen in stream(calibration(), count, seed, **moved):
            self.monitor.observe(label, [seen])


def exchange(open_database: Open, watch: Watched, reservoir: Reservoir | None = None) -> Exchange:
    return Exchange(SketchStore(open_database()), watch, reservoir, interval=1.0)  # type: ignore[arg-type]


def filled(numbers: range, capacity: int = 10) -> Reservoir:
    reservoir = Reservoir(capacity)
    reservoir.add(rows(numbers))
    return reservoir


def turns(*exchanges: Exchange) -> None:
    for each in exchanges:
        asyncio.run(each.turn())


def test_any_gateway_gives_a_sample_of_what_all_have_measured(open_database: Open) -> None:
    """60 images at one gateway and 20 at the other: three of four in a merged sample are the first's."""
    one = exchange(open_database, Watched(), filled(range(60), 40))
    other = exchange(open_database, Watched(), filled(range(60, 80), 40))
    turns(one, other, one)
    assert (one.learnt_elsewhere, other.learnt_elsewhere) == (20, 60)
    first = []
    for each in (one, other) * 20:
        sample = asyncio.run(each.learnt())
        assert len(sample) == 40
        assert (sample.evidence["a"] == np.stack([sample.predicted, -sample.predicted], 1)).all()
        first.append(float((sample.predicted < 60).mean()))
    assert np.mean(first) == pytest.approx(0.75, abs=0.04)


def test_a_gateway_that_is_gone_still_counts_and_one_alone_is_itself(open_database: Open) -> None:
    gone = exchange(open_database, Watched(), filled(range(5)))
    turns(gone)
    one = exchange(open_database, Watched(), filled(range(5, 8)))
    assert sorted(asyncio.run(one.learnt()).predicted) == list(range(8))
    alone = exchange(open_database, Watched(), filled(range(3)))
    alone._watch.firewall.classifier.info.digest = "another model"
    assert sorted(asyncio.run(alone.learnt()).predicted) == [0, 1, 2]


def test_what_cannot_be_read_is_left_out(open_database: Open) -> None:
    one = exchange(open_database, Watched(), filled(range(5)))
    one._store.put("strange", LEARNING, one._learning_subject(), 9, b"junk")
    one._store.put("strange", DRIFT, "c1 conformal", 9, b"junk")
    turns(one)
    assert sorted(asyncio.run(one.learnt()).predicted) == [0, 1, 2, 3, 4]
    assert one.fleet is not None
    assert one.fleet.gateways == 1


def test_drift_of_all_is_seen_by_whoever_is_asked(open_database: Open) -> None:
    watches = [Watched() for _ in range(3)]
    gateways = [exchange(open_database, watch) for watch in watches]
    turns(*gateways, *gateways)
    for seed in range(12):
        for number, watch in enumerate(watches):
            watch.see(12, 10 * seed + number, shift=0.9)
        turns(*gateways)
    turns(*gateways)
    for each in gateways:
        assert each.fleet is not None
        assert (each.fleet.state, each.fleet.gateways) == (State.DRIFTING, 3)
        assert each.fleet.alarms >= 1
        assert each.fleet.images >= 3 * 12 * 11


def test_another_calibration_is_watched_from_its_beginning(open_database: Open) -> None:
    watch = Watched()
    one = exchange(open_database, watch)
    turns(one)
    watch.see(50, 1)
    turns(one)
    assert one.fleet is not None
    assert one.fleet.images == 50
    watch.guard.id = "c2"
    watch.monitor = monitor(calibration())
    turns(one)
    assert one.fleet.images == 0
    watch.guard = None
    turns(one)
    assert one.fleet is None


def test_without_the_database_it_goes_on_alone(open_database: Open, caplog: pytest.LogCaptureFixture) -> None:
    one = exchange(open_database, Watched(), filled(range(5)))

    def fails(*_: Any) -> None:
        raise StoreError("away")

    one._store.put = fails  # type: ignore[method-assign]
    turns(one, one)
    assert [record.message for record in caplog.records] == [
        "the other gateways cannot be told of traffic: away"
    ]
    del one._store.put  # type: ignore[method-assign]
    turns(one)
    assert one.fleet is not None


# --- as a service -------------------------------------------------------------------------------------


@pytest.fixture
def pair(make_client: MakeClient, postgres: Postgres, tmp_path: Path) -> tuple[TestClient, TestClient]:
    """Two gateways on one PostgreSQL, which learn from traffic."""
    url = postgres.create()
    about = {**LEARN, "learn_images": 40, "database_url": url, "sketch_interval_s": 0.1}
    return (
        make_client(**about, data_dir=tmp_path / "one"),
        make_client(**about, data_dir=tmp_path / "two"),
    )


def test_two_gateways_calibrate_on_what_both_have_seen(pair: tuple[TestClient, TestClient]) -> None:
    one, other = pair
    send(one, 16, seed=1)
    send(other, 16, seed=2)
    until(lambda: learning_of(one)["elsewhere"] == learning_of(other)["elsewhere"] == 16)
    answer = one.post("/calibrations/from-traffic", json={"contamination": 0.0})
    assert answer.status_code == 201, answer.text
    assert answer.json()["images"] == 32
    until(lambda: (other.get("/info").json()["calibration"] or {}).get("id") == answer.json()["id"])
    for client in pair:
        client.post("/classify", files=form(pngs(8, seed=3)))
    until(lambda: all((c.get("/info").json()["drift"]["fleet"] or {}).get("gateways") == 2 for c in pair))


def test_one_gateway_alone_tells_nobody(make_client: MakeClient) -> None:
    client = make_client(**LEARN)
    assert gateway_of(client).exchange is None
    assert client.get("/info").json()["drift"]["fleet"] is None
    assert learning_of(client)["elsewhere"] == 0
