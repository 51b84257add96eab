"""Decisions: what comes back, page by page, and what retention removes."""

import math
from datetime import timedelta

import pytest

from app.policy import Detection, Mode, Verdict
from app.storage.database import Database
from app.storage.decisions import Decision, DecisionFilter, DecisionStore, Span
from app.storage.errors import NumberTaken, StoreError, UnknownDecision
from app.storage.ids import DecisionIds, first_id
from app.storage.quarantine import Arrival, QuarantineStore
from tests.app.storage.examples import START, after, decision, digest, said


@pytest.fixture
def store(database: Database) -> DecisionStore:
    return DecisionStore(database)


def seconds(store: DecisionStore, **asked: object) -> list[float]:
    """When the decisions that a filter takes were made, in seconds after `START`, the newest first."""
    found = store.page(DecisionFilter(**asked)).decisions  # type: ignore[arg-type]
    return [(each.at - START).total_seconds() for each in found]


def test_what_is_added_comes_back_whole(store: DecisionStore) -> None:
    whole = decision(
        1,
        said(0.9, 0.5, 0.01, detector="profile"),
        said(0.2, 0.75, None, detector="psc", exact=False),
        place=7,
        label=2,
        confidence=None,
        verdict=Verdict.FLAGGED,
        mode=Mode.MONITOR,
        calibration_id=None,
    )
    store.add([whole])
    assert store.get(whole.id) == whole
    assert store.page(DecisionFilter()).decisions == [whole]
    assert list(store.every(DecisionFilter())) == [whole]
    assert store.count() == 1


def test_numbers_that_are_none(store: DecisionStore) -> None:
    """A score that is not a number was never cleared; under an infinite threshold nothing is suspicious."""
    store.add([decision(1, said(math.nan), said(3.0, math.inf, detector="spc"))])
    psc, spc = store.page(DecisionFilter()).decisions[0].detections
    assert math.isnan(psc.score)
    assert psc.suspicious
    assert spc == Detection("spc", 3.0, math.inf, 0.5, False, True)


def test_a_batch_that_was_kept_without_a_word_is_not_kept_twice(store: DecisionStore) -> None:
    """The connection broke between the commit and its answer: the batch comes again."""
    batch = [decision(0, said(0.9)), decision(1)]
    store.add(batch)
    store.add(batch)
    assert seconds(store) == [1, 0]
    assert sum(sum(step.images.values()) for step in store.traffic(Span())) == 2


def test_another_gateway_s_decision_with_the_same_number_stays(store: DecisionStore) -> None:
    store.add([decision(1, request_id="elsewhere")])
    for changed in ({}, {"request_id": "elsewhere", "place": 1}, {"request_id": "elsewhere", "image": "b"}):
        with pytest.raises(NumberTaken):
            store.add([decision(1, **changed)])  # type: ignore[arg-type]
    assert store.page(DecisionFilter()).decisions == [decision(1, request_id="elsewhere")]


def test_all_of_a_batch_or_nothing(store: DecisionStore) -> None:
    store.add([decision(1)])
    with pytest.raises(StoreError):
        store.add([decision(0), decision(1)])
    assert seconds(store) == [1]
    assert [each.images for each in store.traffic(Span())] == [{Verdict.ACCEPTED: 1}]


def test_an_unknown_one(store: DecisionStore) -> None:
    with pytest.raises(UnknownDecision, match="no decision 5"):
        store.get(5)


def test_filters(store: DecisionStore) -> None:
    store.add(
        [
            decision(0, said(0.9), label=1, request_id="r"),
            decision(1, said(0.1), label=1, calibration_id="b"),
            decision(2, said(0.9, detector="spc"), said(0.1), label=2, image="same"),
            decision(3, verdict=Verdict.FLAGGED, label=2, image="same"),
        ]
    )
    assert seconds(store) == [3, 2, 1, 0]
    assert seconds(store, verdicts=[Verdict.REJECTED]) == [2, 0]
    assert seconds(store, verdicts=[Verdict.REJECTED, Verdict.FLAGGED], label=2) == [3, 2]
    assert seconds(store, label=1) == [1, 0]
    assert seconds(store, detector="psc") == [0]
    assert seconds(store, detector="spc") == [2]
    assert seconds(store, calibration_id="b") == [1]
    assert seconds(store, request_id="r") == [0]
    assert seconds(store, image_sha256=digest("same")) == [3, 2]
    assert seconds(store, span=Span(after(1), after(3))) == [2, 1]


def test_paging_shows_each_once(store: DecisionStore) -> None:
    store.add([decision(n) for n in range(7)])
    shown: list[Decision] = []
    before, pages = None, 0
    while pages == 0 or before is not None:
        page = store.page(DecisionFilter(), before=before, limit=3)
        store.add([decision(100 + pages)])  # what comes meanwhile moves nothing
        shown += page.decisions
        before, pages = page.next, pages + 1
    assert [each.id for each in shown] == [decision(n).id for n in range(6, -1, -1)]
    assert pages == 3


def test_every_reads_on_behind_what_it_has(store: DecisionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.decisions.FETCHED", 3)
    store.add([decision(n, said(0.1)) for n in range(6)])
    assert [each.at for each in store.every(DecisionFilter())] == [after(n) for n in range(6)]
    assert [each.at for each in store.every(DecisionFilter(span=Span(since=after(4))))] == [
        after(4),
        after(5),
    ]


def test_traffic_is_counted_by_minute(store: DecisionStore) -> None:
    store.add([decision(0), decision(59.9), decision(59.95, said(0.9)), decision(60)])
    store.add([decision(119, said(0.9))])
    accepted, rejected = Verdict.ACCEPTED, Verdict.REJECTED
    by_minute = store.traffic(Span())
    assert [(each.at, each.images) for each in by_minute] == [
        (START, {accepted: 2, rejected: 1}),
        (after(60), {accepted: 1, rejected: 1}),
    ]
    assert [each.images for each in store.traffic(Span(), 5)] == [{accepted: 3, rejected: 2}]
    assert [each.at for each in store.traffic(Span(since=after(60)))] == [after(60)]
    assert [each.at for each in store.traffic(Span(until=after(60)))] == [START]


def test_labels(store: DecisionStore) -> None:
    store.add([decision(0, label=1), decision(1, label=1, verdict=Verdict.FLAGGED), decision(2, label=4)])
    assert store.labels(Span(), suspicious=False) == {1: 2, 4: 1}
    assert store.labels(Span(), suspicious=True) == {1: 1}
    assert store.labels(Span(), suspicious=False, most=2) == {1: 1, 4: 1}


class TestRetention:
    def test_by_number(self, store: DecisionStore) -> None:
        store.add([decision(n, said(0.1)) for n in range(5)])
        assert store.retain(oldest=None, most=2) == 3
        assert seconds(store) == [4, 3]
        assert store.retain(oldest=None, most=2) == 0
        assert sum(each.images[Verdict.ACCEPTED] for each in store.traffic(Span())) == 5

    def test_by_age(self, store: DecisionStore, database: Database) -> None:
        store.add([decision(60 * n, said(0.1)) for n in range(5)])
        assert store.retain(oldest=after(120), most=100) == 2
        assert seconds(store) == [240, 180, 120]
        assert [each.at for each in store.traffic(Span())] == [after(120), after(180), after(240)]
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM detections").scalar_one() == 3

    def test_in_steps(self, store: DecisionStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.storage.decisions.REMOVED", 2)
        store.add([decision(n) for n in range(7)])
        assert store.retain(oldest=None, most=2) == 5

    def test_steps_go_past_what_is_held(
        self, store: DecisionStore, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.storage.decisions.REMOVED", 2)
        made = [decision(n, said(0.9)) for n in range(9)]
        store.add(made)
        held = made[1:5]
        QuarantineStore(database).add(
            [Arrival(each.image_sha256, each.id, 0.0, 10, "image/png") for each in held]
        )
        assert store.retain(oldest=None, most=1) == 4
        assert seconds(store) == [8, 4, 3, 2, 1]
        with database.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM detections").scalar_one() == 5

    def test_not_what_an_image_in_quarantine_was_judged_by(
        self, store: DecisionStore, database: Database
    ) -> None:
        held = decision(0, said(0.9))
        store.add([held, decision(1), decision(2)])
        quarantine = QuarantineStore(database)
        quarantine.add([Arrival(held.image_sha256, held.id, 0.0, 10, "image/png")])
        assert store.retain(oldest=after(100), most=0) == 2
        assert seconds(store) == [0]
        quarantine.forget([held.image_sha256])
        assert store.retain(oldest=after(100), most=0) == 1


class TestIds:
    def test_they_rise_even_when_the_clock_does_not(self) -> None:
        ids = DecisionIds()
        given = [ids.next(1_000_000.0 - n) for n in range(100)]
        assert given == sorted(set(given))

    def test_they_sort_by_time(self) -> None:
        at = START.timestamp()
        assert first_id(START) <= DecisionIds().next(at) < first_id(START + timedelta(microseconds=1))
        assert DecisionIds().next(at) < 2**63
