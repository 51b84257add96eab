"""Opening a database: its durability, what is refused, and the way up from older releases."""

import sqlite3
from pathlib import Path

import pytest

from app.storage.calibrations import CalibrationStore
from app.storage.database import FILE_NAME, Database
from app.storage.errors import StoreError
from app.storage.migrations import VERSION
from app.storage.sessions import SessionStore
from app.storage.sketches import SketchStore
from tests.app.storage.conftest import Open
from tests.app.storage.test_calibrations import record

VERSION_1 = """
CREATE TABLE calibrations (
    number INTEGER NOT NULL, id VARCHAR NOT NULL, created_at VARCHAR NOT NULL,
    classifier_digest VARCHAR NOT NULL, model_name VARCHAR NOT NULL, model_version VARCHAR NOT NULL,
    alpha FLOAT NOT NULL, images INTEGER NOT NULL, content TEXT NOT NULL, report TEXT NOT NULL,
    PRIMARY KEY (number), UNIQUE (id));
CREATE TABLE activations (
    number INTEGER NOT NULL, calibration_id VARCHAR NOT NULL, at VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    PRIMARY KEY (number), FOREIGN KEY(calibration_id) REFERENCES calibrations (id));
CREATE TRIGGER calibrations_no_update BEFORE UPDATE ON calibrations
    BEGIN SELECT RAISE(ABORT, 'calibrations are never changed'); END;
CREATE TRIGGER calibrations_no_delete BEFORE DELETE ON calibrations
    BEGIN SELECT RAISE(ABORT, 'calibrations are never changed'); END;
CREATE TRIGGER activations_no_update BEFORE UPDATE ON activations
    BEGIN SELECT RAISE(ABORT, 'activations are never changed'); END;
CREATE TRIGGER activations_no_delete BEFORE DELETE ON activations
    BEGIN SELECT RAISE(ABORT, 'activations are never changed'); END;
INSERT INTO calibrations VALUES (1, 'a', '2026-03-04T05:06:07+00:00', 'dddd', 'tiny', '1', 0.01, 10,
    '{"detectors": [10]}', '{"warnings": ["\u00e9"]}');
INSERT INTO activations VALUES (1, 'a', '2026-03-04T05:06:08+00:00', 'created');
PRAGMA user_version=1;
"""
"""What the first release left."""


def shape(path: Path) -> set[tuple[str, ...]]:
    """Everything that a database consists of, whatever order and spacing its statements have."""
    with sqlite3.connect(path) as connection:
        things = set(connection.execute("SELECT type, name, tbl_name FROM sqlite_master"))
        found = set(things)
        for table in [name for type, name, _ in things if type == "table"]:
            columns = connection.execute(
                f"SELECT name, type, [notnull], pk FROM pragma_table_info('{table}')"
            )
            found |= {("column", table, *map(str, column)) for column in columns}
            keys = connection.execute(f"SELECT wr FROM pragma_table_list('{table}')")
            found |= {("without rowid", table, *map(str, key)) for key in keys}
        for name in [name for type, name, _ in things if type == "index"]:
            columns = connection.execute(f"SELECT name FROM pragma_index_info('{name}')")
            found |= {("indexed", name, *column) for column in columns}
    return found


def test_a_database_of_the_first_release_is_upgraded_with_what_is_in_it(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.executescript(VERSION_1)
    Database(tmp_path / "new").close()
    store = CalibrationStore(Database(tmp_path))
    assert store.active_id() == "a"
    assert store.get("a").report == {"warnings": ["é"]}
    store.save(record("b"), activate=True)
    assert [each.id for each in store.summaries()] == ["b", "a"]
    assert shape(tmp_path / FILE_NAME) == shape(tmp_path / "new" / FILE_NAME)


def test_a_database_of_the_second_release_is_upgraded(open_database: Open) -> None:
    older = open_database()
    CalibrationStore(older).save(record("a"), activate=True)
    with older.write() as connection:
        for table in ("secrets", "ended_sessions", "sketches"):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("UPDATE schema_version SET version = 2")
    newer = open_database()
    assert CalibrationStore(newer).active_id() == "a"
    assert not SessionStore(newer).ended("b")
    assert len(SessionStore(newer).secret()) == 32
    SketchStore(newer).put("a", "drift", "c", 2**40, b"x")
    assert SketchStore(newer).images("drift", "c") == {"a": 2**40}


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.executescript(VERSION_1)
        connection.execute("CREATE TABLE reviews (somebody_elses INTEGER)")
    before = shape(tmp_path / FILE_NAME)
    with pytest.raises(StoreError, match="reviews already exists"):
        Database(tmp_path)
    assert shape(tmp_path / FILE_NAME) == before


def test_durability_settings(tmp_path: Path) -> None:
    with Database(tmp_path).read() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "user_version")
        ]
    assert values == ["wal", 2, 1, VERSION]


def test_the_first_release_s_file_version_is_refused_by_it(tmp_path: Path) -> None:
    """It looks at `user_version`, which must not be 1 any more."""
    Database(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_another_release_s_database_is_left_alone(open_database: Open) -> None:
    with open_database().write() as connection:
        connection.exec_driver_sql("UPDATE schema_version SET version = 77")
    with pytest.raises(StoreError, match=r"schema version 77.*another release"):
        open_database()


def test_a_transaction_is_kept_as_a_whole_or_not_at_all(database: Database) -> None:
    def twice() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO traffic VALUES (1, 'accepted', 1)")
            connection.exec_driver_sql("INSERT INTO traffic VALUES (1, 'accepted', 1)")

    with pytest.raises(StoreError):
        twice()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM traffic").scalar_one() == 0


def test_no_database_at_all(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be looked at" * 30)
    with pytest.raises(StoreError, match="cannot be used"):
        Database(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Database(tmp_path / "file" / "data")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "no URL like postgresql://"),
        ("mysql://u:hidden@h/d", r"mysql://u:\*\*\*@h/d is none that Triggerwall knows"),
        ("postgresql://u:hidden@127.0.0.1:1/d", r"postgresql://u:\*\*\*@127.0.0.1:1/d cannot be used"),
    ],
)
def test_urls_that_lead_nowhere_are_told_without_their_password(
    tmp_path: Path, url: str, reason: str
) -> None:
    with pytest.raises(StoreError, match=reason) as told:
        Database(tmp_path, url)
    assert "hidden" not in str(told.value)
