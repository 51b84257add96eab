"""The quarantine's index: filters, marks and their history, and what has to go."""

import time

import pytest

from app.policy import Verdict
from app.storage.database import Database
from app.storage.decisions import Decision, DecisionStore, Span
from app.storage.errors import StoreError, UnknownImage
from app.storage.quarantine import Arrival, HeldFilter, Mark, QuarantineStore, _in_parts
from tests.app.storage.examples import after, decision, digest, said

EVER = float("-inf")


@pytest.fixture
def store(database: Database) -> QuarantineStore:
    return QuarantineStore(database)


def hold(database: Database, *judged: Decision, size: int = 10) -> None:
    DecisionStore(database).add(judged)
    at = [each.at.timestamp() for each in judged]
    QuarantineStore(database).add(
        [Arrival(d.image_sha256, d.id, t, size, "image/png") for d, t in zip(judged, at, strict=True)]
    )


def names(store: QuarantineStore, **asked: object) -> list[str]:
    """The digests of the images that a filter takes."""
    found = [each.sha256 for each in store.page(HeldFilter(**asked)).images]  # type: ignore[arg-type]
    assert store.count(HeldFilter(**asked)) == len(found)  # type: ignore[arg-type]
    return found


def test_what_is_held_comes_back_with_its_decision(store: QuarantineStore, database: Database) -> None:
    hold(database, decision(1, said(0.9), image="x", label=2, confidence=0.5))
    held = store.get(digest("x"))
    assert (held.decision_id, held.stored_at, held.size) == (decision(1).id, after(1), 10)
    assert (held.label, held.confidence, held.verdict) == (2, 0.5, Verdict.REJECTED)
    assert (held.times, held.mark, held.marked_by, held.marked_at) == (1, None, None, None)
    assert store.known([digest("x"), digest("y")]) == {digest("x")}
    with pytest.raises(UnknownImage):
        store.get(digest("y"))


def test_an_image_that_comes_again_is_kept_once(store: QuarantineStore, database: Database) -> None:
    hold(database, decision(1, said(0.9), image="x"))
    store.mark([digest("x")], Mark.TRIGGER, "ada")
    hold(database, decision(2, image="x", label=5))
    held = store.get(digest("x"))
    assert (held.times, held.label, held.decision_id) == (2, 5, decision(2).id)
    assert (held.stored_at, held.mark) == (after(1), Mark.TRIGGER)
    assert store.totals().images == 1


def test_filters_and_pages(store: QuarantineStore, database: Database) -> None:
    hold(
        database,
        decision(1, said(0.9), image="a", label=1),
        decision(2, said(0.9, detector="spc"), said(0.1), image="b", label=2),
        decision(3, said(0.1), image="c", label=2),
    )
    a, b, c = digest("a"), digest("b"), digest("c")
    store.mark([a], Mark.FALSE_ALARM, "ada")
    assert names(store) == [c, b, a]
    assert names(store, label=2) == [c, b]
    assert names(store, verdict=Verdict.REJECTED) == [b, a]
    assert names(store, detector="spc") == [b]
    assert names(store, mark=Mark.FALSE_ALARM) == [a]
    assert names(store, mark=Mark.TRIGGER) == []
    assert names(store, reviewed=True) == [a]
    assert names(store, reviewed=False) == [c, b]
    assert names(store, span=Span(after(2), after(3))) == [b]
    first = store.page(HeldFilter(), limit=2)
    second = store.page(HeldFilter(), before=first.next, limit=2)
    assert [each.sha256 for each in (*first.images, *second.images)] == [c, b, a]
    assert second.next is None


class TestMarks:
    def test_who_and_when_and_what_it_was_before(self, store: QuarantineStore, database: Database) -> None:
        hold(database, decision(1, said(0.9), image="x"))
        store.mark([digest("x")], Mark.TRIGGER, "ada")
        store.mark([digest("x")], Mark.FALSE_ALARM, "<b>grace</b>")
        held = store.get(digest("x"))
        assert (held.mark, held.marked_by) == (Mark.FALSE_ALARM, "<b>grace</b>")
        assert held.marked_at is not None
        assert abs(held.marked_at.timestamp() - time.time()) < 60
        store.mark([digest("x")], None, "ada")
        held = store.get(digest("x"))
        assert (held.mark, held.marked_by, held.marked_at) == (None, None, None)
        history = [(each.mark, each.by) for each in store.reviews(digest("x"))]
        assert history == [(None, "ada"), (Mark.FALSE_ALARM, "<b>grace</b>"), (Mark.TRIGGER, "ada")]

    def test_many_at_once(self, store: QuarantineStore, database: Database) -> None:
        hold(database, *[decision(n, said(0.9), image=n, label=n % 2) for n in range(1, 1203)])
        digests = [digest(n) for n in range(1, 1203)]
        assert store.mark([*digests, digest("nobody"), digests[0]], Mark.TRIGGER, "ada") == 1202
        assert store.totals().marked == {Mark.TRIGGER: 1202}
        assert store.mark_all(HeldFilter(label=1), Mark.FALSE_ALARM, "ada") == 601
        assert store.totals().marked == {Mark.TRIGGER: 601, Mark.FALSE_ALARM: 601}
        assert len(store.marked(Mark.FALSE_ALARM, 2000)) == 601
        assert len(store.reviews(limit=10_000)) == 1202 + 601

    def test_their_history_cannot_be_rewritten(self, store: QuarantineStore, database: Database) -> None:
        hold(database, decision(1, said(0.9), image="x"))
        store.mark([digest("x")], Mark.TRIGGER, "ada")
        with pytest.raises(StoreError, match="never changed"), database.write() as connection:
            connection.exec_driver_sql("DELETE FROM reviews")
        store.forget([digest("x")])
        assert len(store.reviews()) == 1


class TestSurplus:
    """Four images, seen last 1, 2, 3 and 4 seconds after the start; `b` is marked."""

    @pytest.fixture(autouse=True)
    def _four(self, store: QuarantineStore, database: Database) -> None:
        hold(database, *[decision(n, said(0.9), image=name) for n, name in enumerate("abcd", 1)])
        store.mark([digest("b")], Mark.TRIGGER, "ada")

    def gone(self, store: QuarantineStore, **limits: float) -> set[str]:
        unlimited = {"unmarked": EVER, "marked": EVER, "images": 100, "size": 1000}
        found = store.surplus(**{**unlimited, **limits})  # type: ignore[arg-type]
        return {name for name in "abcd" if digest(name) in found}

    def test_by_age(self, store: QuarantineStore) -> None:
        assert self.gone(store) == set()
        assert self.gone(store, unmarked=after(4).timestamp()) == {"a", "c"}
        assert self.gone(store, marked=after(4).timestamp()) == {"b"}

    def test_by_number_and_bytes_those_with_a_mark_stay_longest(self, store: QuarantineStore) -> None:
        assert self.gone(store, images=2) == {"a", "c"}
        assert self.gone(store, images=1) == {"a", "c", "d"}
        assert self.gone(store, images=0) == set("abcd")
        assert self.gone(store, size=30) == {"a"}
        assert self.gone(store, size=29) == {"a", "c"}

    def test_forgotten(self, store: QuarantineStore) -> None:
        store.forget([digest("a"), digest("b"), digest("nobody")])
        assert names(store) == [digest("d"), digest("c")]
        assert (store.totals().images, store.totals().bytes) == (2, 20)


def test_whatever_the_number_of_images_few_statements_ask_for_them() -> None:
    lengths = {len(part) for count in range(1, 1501) for part in _in_parts([str(n) for n in range(count)])}
    assert lengths == {1, 2, 4, 8, 16, 32, 64, 128, 256, 500}
    assert [sorted(set(part)) for part in _in_parts(["a", "b", "c"])] == [["a", "b", "c"]]
    assert _in_parts([]) == []
