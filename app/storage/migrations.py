"""Steps that bring an older database to this release's schema, forward only.

A new database gets the tables of `schema.py` as they are. An older one runs the steps above its version, in
order, all in one transaction: it is upgraded as a whole or stays what it was. A step is never changed once
it was released, and says what it does in plain SQL, so that later changes of `schema.py` cannot reach it. To
change the schema: change `schema.py`, raise `VERSION`, add the step from the version before; a test
compares an upgraded database with a new one.

SQLite keeps its version in `user_version` too, where releases before version 2 look for it: they refuse
what they do not know.
"""

from collections.abc import Callable

from sqlalchemy import Connection, delete, insert, inspect, select

from app.storage.errors import StoreError
from app.storage.schema import APPEND_ONLY, metadata, schema_version

__all__ = ["VERSION", "migrate"]

VERSION = 4
LOCK = 7_436_116  # PostgreSQL's advisory lock: gateways that start together migrate one after another

TO_2_SQLITE = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE decisions (
    id INTEGER NOT NULL, at FLOAT NOT NULL, request_id VARCHAR NOT NULL, place INTEGER NOT NULL,
    image_sha256 BLOB NOT NULL, label INTEGER NOT NULL, confidence FLOAT, verdict VARCHAR NOT NULL,
    mode VARCHAR NOT NULL, calibration_id VARCHAR, PRIMARY KEY (id));
CREATE INDEX decisions_by_verdict ON decisions (verdict, id);
CREATE INDEX decisions_by_label ON decisions (label, id);
CREATE TABLE detections (
    decision_id INTEGER NOT NULL, detector VARCHAR NOT NULL, score FLOAT, p_value FLOAT, threshold FLOAT,
    suspicious BOOLEAN NOT NULL, exact BOOLEAN NOT NULL, PRIMARY KEY (decision_id, detector)) WITHOUT ROWID;
CREATE TABLE traffic (
    minute INTEGER NOT NULL, verdict VARCHAR NOT NULL, images INTEGER NOT NULL,
    PRIMARY KEY (minute, verdict));
CREATE TABLE quarantine (
    sha256 BLOB NOT NULL, decision_id INTEGER NOT NULL, stored_at FLOAT NOT NULL, size INTEGER NOT NULL,
    media_type VARCHAR NOT NULL, times INTEGER NOT NULL, mark VARCHAR, marked_by VARCHAR, marked_at FLOAT,
    PRIMARY KEY (sha256), UNIQUE (decision_id));
CREATE TABLE reviews (
    number INTEGER NOT NULL, sha256 BLOB NOT NULL, mark VARCHAR, "by" VARCHAR NOT NULL, at FLOAT NOT NULL,
    PRIMARY KEY (number));
CREATE TRIGGER reviews_no_update BEFORE UPDATE ON reviews
    BEGIN SELECT RAISE(ABORT, 'reviews are never changed'); END;
CREATE TRIGGER reviews_no_delete BEFORE DELETE ON reviews
    BEGIN SELECT RAISE(ABORT, 'reviews are never changed'); END
"""


def _to_2(connection: Connection) -> None:
    """Decisions and quarantine. Version 1 was always SQLite."""
    for statement in TO_2_SQLITE.replace("; END", "\0").split(";\n"):
        connection.exec_driver_sql(statement.replace("\0", "; END"))


def _to_3(connection: Connection) -> None:
    """Sessions of the console, which every gateway knows."""
    sqlite = connection.dialect.name == "sqlite"
    blob, real = ("BLOB", "FLOAT") if sqlite else ("BYTEA", "DOUBLE PRECISION")
    connection.exec_driver_sql(
        f"CREATE TABLE secrets (name VARCHAR NOT NULL, value {blob} NOT NULL, PRIMARY KEY (name))"
    )
    connection.exec_driver_sql(
        f"CREATE TABLE ended_sessions (id VARCHAR NOT NULL, expires {real} NOT NULL, PRIMARY KEY (id))"
    )


def _to_4(connection: Connection) -> None:
    """What gateways tell each other of their traffic."""
    sqlite = connection.dialect.name == "sqlite"
    blob, real = ("BLOB", "FLOAT") if sqlite else ("BYTEA", "DOUBLE PRECISION")
    whole = "INTEGER" if sqlite else "BIGINT"
    connection.exec_driver_sql(
        "CREATE TABLE sketches (replica VARCHAR NOT NULL, kind VARCHAR NOT NULL, subject VARCHAR NOT NULL, "
        f"at {real} NOT NULL, images {whole} NOT NULL, content {blob} NOT NULL, PRIMARY KEY (replica, kind))"
    )


STEPS: dict[int, Callable[[Connection], None]] = {2: _to_2, 3: _to_3, 4: _to_4}
"""By the version that the step leads to."""


def migrate(connection: Connection) -> None:
    """Create this release's tables, or upgrade older ones, within the transaction of `connection`.

    Raises `StoreError` for a database of a later release.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    version = _version(connection)
    if version > VERSION:
        raise StoreError(
            f"the database has schema version {version}, this Triggerwall knows {VERSION}: it was made by "
            "another release"
        )
    if version == 0:
        metadata.create_all(connection)
        _protect(connection)
    else:
        for step in range(version + 1, VERSION + 1):
            STEPS[step](connection)
    if version < VERSION:
        _stamp(connection)


def _version(connection: Connection) -> int:
    """0 where there is no database yet."""
    if inspect(connection).has_table(schema_version.name):
        return connection.execute(select(schema_version.c.version)).scalar() or 0
    if connection.dialect.name == "sqlite":
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return 0


def _stamp(connection: Connection) -> None:
    connection.execute(delete(schema_version))
    connection.execute(insert(schema_version).values(version=VERSION))
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")


def _protect(connection: Connection) -> None:
    """Rows of the append-only tables can be neither changed nor removed, by whatever program."""
    for table in APPEND_ONLY:
        message = f"{table} are never changed"
        if connection.dialect.name == "sqlite":
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
                )
        else:
            connection.exec_driver_sql(
                f"CREATE FUNCTION {table}_are_kept() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$"
            )
            connection.exec_driver_sql(
                f"CREATE TRIGGER {table}_kept BEFORE UPDATE OR DELETE ON {table} "
                f"FOR EACH ROW EXECUTE FUNCTION {table}_are_kept()"
            )
