"""Calibrations: what is kept, what cannot be changed, and what a killed process leaves."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.storage.calibrations import CalibrationStore, Record, new_id
from app.storage.database import FILE_NAME, Database
from app.storage.errors import StoreError, UnknownCalibration
from tests.app.storage.conftest import Open

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def record(id: str, images: int = 10) -> Record:
    content, report = {"detectors": [images]}, {"warnings": ["é"], "images": images}
    return Record(id, CREATED, "d" * 64, "tiny", "1", 0.01, images, content, report)


@pytest.fixture
def store(database: Database) -> CalibrationStore:
    return CalibrationStore(database)


def test_what_is_saved_comes_back(open_database: Open) -> None:
    database = open_database()
    store = CalibrationStore(database)
    store.save(record("a"), activate=False)
    assert store.get("a") == record("a")
    assert store.active_id() is None
    assert store.history() == []
    database.close()
    assert CalibrationStore(open_database()).get("a") == record("a")


def test_the_last_activation_counts(store: CalibrationStore) -> None:
    for id in ("a", "b", "c"):
        store.save(record(id), activate=id != "c")
    store.activate("a", "rolled back")
    assert store.active_id() == "a"
    assert [(each.calibration_id, each.reason) for each in store.history()] == [
        ("a", "rolled back"),
        ("b", "created"),
        ("a", "created"),
    ]
    assert [each.id for each in store.summaries()] == ["c", "b", "a"]
    assert store.summaries()[0].content == {}
    assert abs(store.history()[0].at.timestamp() - time.time()) < 60


def test_what_does_not_exist(store: CalibrationStore) -> None:
    for call in (lambda: store.get("a"), lambda: store.activate("a", "x")):
        with pytest.raises(UnknownCalibration, match="no calibration a"):
            call()
    assert store.history() == []


def test_an_id_is_used_once(store: CalibrationStore) -> None:
    store.save(record("a"), activate=True)
    with pytest.raises(StoreError):
        store.save(record("a", images=99), activate=True)
    assert store.get("a").images == 10
    assert len(store.history()) == 1  # saving and activating are one transaction


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE calibrations SET content = '{}'",
        "DELETE FROM activations",
        "DELETE FROM calibrations",
        "UPDATE activations SET reason = 'x'",
    ],
)
def test_history_cannot_be_rewritten(database: Database, statement: str) -> None:
    CalibrationStore(database).save(record("a"), activate=True)
    with pytest.raises(StoreError, match="are never changed"), database.write() as connection:
        connection.exec_driver_sql(statement)
    assert CalibrationStore(database).get("a") == record("a")


def test_ids_sort_by_time() -> None:
    assert new_id(CREATED).startswith("20260304T050607Z-")
    assert new_id(CREATED) != new_id(CREATED)


WRITER = """
import sys
from pathlib import Path
from tests.app.storage.test_calibrations import record
from app.storage.calibrations import CalibrationStore
from app.storage.database import Database
store = CalibrationStore(Database(Path(sys.argv[1])))
for number in range(100_000):
    id = f"{sys.argv[2]}-{number}"
    store.save(record(id, number), activate=True)
    print(id, flush=True)
"""


def test_killed_at_any_moment_everything_answered_is_there(tmp_path: Path) -> None:
    """Writers are killed at different moments of their first steps and of their steady state."""
    answered: list[str] = []
    for life, seconds in enumerate((0.0, 0.003, 0.02, 0.05, 0.15)):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), f"life{life}"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        if life:
            answered.append(process.stdout.readline().strip())
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        answered += process.communicate(timeout=30)[0].split()
    store = CalibrationStore(Database(tmp_path))
    kept = {each.id for each in store.summaries()}
    assert len(answered) > 4
    assert kept >= set(answered)
    assert len(kept) <= len(answered) + 5  # at most one per life that was kept but not yet answered
    active = store.active_id()
    assert active is not None
    assert active.startswith("life4")
    assert active == store.summaries()[0].id
    assert {each.calibration_id for each in store.history(100_000)} == kept  # nobody half-saved
    assert all(store.get(id).content == {"detectors": [store.get(id).images]} for id in sorted(kept)[:50])
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert json.loads(connection.execute("SELECT report FROM calibrations").fetchone()[0])[
            "warnings"
        ] == ["é"]
