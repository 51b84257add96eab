"""What gateways tell each other of their traffic."""

import pytest

from app.storage import sketches
from app.storage.database import Database
from app.storage.sketches import KEEP_S, SketchStore
from tests.app.storage.conftest import Open


def test_the_latest_of_every_replica(open_database: Open) -> None:
    one, other = SketchStore(open_database()), SketchStore(open_database())
    one.put("a", "drift", "c1", 5, b"\x00old")
    one.put("a", "drift", "c1", 9, b"\x00new")
    other.put("b", "drift", "c1", 4, b"other")
    assert one.get("drift", "c1") == other.get("drift", "c1") == {"a": b"\x00new", "b": b"other"}
    assert one.images("drift", "c1") == {"a": 9, "b": 4}


def test_kinds_and_subjects_are_apart(database: Database) -> None:
    store = SketchStore(database)
    store.put("a", "drift", "c1", 1, b"x")
    store.put("a", "learning", "m1", 2, b"y")
    assert store.get("learning", "m1") == {"a": b"y"}
    assert store.get("learning", "c1") == store.images("drift", "m1") == {}
    store.put("a", "drift", "c2", 1, b"z")  # another calibration is enforced: the old sums are of no use
    assert store.get("drift", "c1") == {}


def test_what_is_too_old_is_forgotten(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    store, clock = SketchStore(database), [1000.0]
    monkeypatch.setattr(sketches.time, "time", lambda: clock[0])
    store.put("gone", "drift", "c1", 3, b"x")
    clock[0] += KEEP_S - 1
    store.put("here", "drift", "c1", 3, b"y")
    assert set(store.get("drift", "c1")) == {"gone", "here"}
    clock[0] += 2
    store.put("here", "drift", "c1", 3, b"y")
    assert set(store.get("drift", "c1")) == {"here"}


def test_more_images_than_32_bits_count(database: Database) -> None:
    store = SketchStore(database)
    store.put("a", "drift", "c1", 5_000_000_000, b"")
    assert store.images("drift", "c1") == {"a": 5_000_000_000}
