"""The store: what it keeps, what it refuses to change, and what a killed process leaves."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.store import FILE_NAME, Record, Store, StoreError, UnknownCalibration, new_id

CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def record(id: str, images: int = 10) -> Record:
    content, report = {"detectors": [images]}, {"warnings": ["é"], "images": images}
    return Record(id, CREATED, "d" * 64, "tiny", "1", 0.01, images, content, report)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "data")
    store.save(record("a"), activate=False)
    assert store.get("a") == record("a")
    assert store.active_id() is None
    assert store.history() == []
    store.close()
    assert Store(tmp_path / "new" / "data").get("a") == record("a")


def test_the_last_activation_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
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


def test_what_does_not_exist(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for call in (lambda: store.get("a"), lambda: store.activate("a", "x")):
        with pytest.raises(UnknownCalibration, match="no calibration a"):
            call()
    assert store.history() == []


def test_an_id_is_used_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
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
def test_history_cannot_be_rewritten(tmp_path: Path, statement: str) -> None:
    Store(tmp_path).save(record("a"), activate=True)
    with (
        sqlite3.connect(tmp_path / FILE_NAME) as connection,
        pytest.raises(sqlite3.IntegrityError, match="never"),
    ):
        connection.execute(statement)


def test_durability_settings(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store._engine.connect() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
        ]
    assert values == ["wal", 2, 1, 1]


def test_another_release_s_file_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version=7")
    with pytest.raises(StoreError, match=r"schema version 7.*another release"):
        Store(tmp_path)


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file" / "data")


def test_ids_sort_by_time() -> None:
    assert new_id(CREATED).startswith("20260304T050607Z-")
    assert new_id(CREATED) != new_id(CREATED)


WRITER = """
import sys
from pathlib import Path
from tests.app.test_store import record
from app.store import Store
store = Store(Path(sys.argv[1]))
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
    store = Store(tmp_path)
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
