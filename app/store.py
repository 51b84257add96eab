"""What outlives the process: calibrations, and the history of which one was active.

SQLite in the data directory, in WAL mode with every commit synced to disk, so that a killed process or
machine leaves the last committed state. Rows are never changed or removed: triggers see to that.
Blocking: call it from a thread. Every method raises `StoreError` where the database fails.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.exc import SQLAlchemyError

__all__ = ["Activation", "Record", "Store", "StoreError", "UnknownCalibration", "new_id", "now"]

SCHEMA_VERSION = 1
FILE_NAME = "triggerwall.sqlite3"

metadata = MetaData()
calibrations = Table(
    "calibrations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),  # the order of creation
    Column("id", String, unique=True, nullable=False),
    Column("created_at", String, nullable=False),
    Column("classifier_digest", String, nullable=False),
    Column("model_name", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("alpha", Float, nullable=False),
    Column("images", Integer, nullable=False),
    Column("content", Text, nullable=False),
    Column("report", Text, nullable=False),
)
activations = Table(
    "activations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("calibration_id", String, ForeignKey("calibrations.id"), nullable=False),
    Column("at", String, nullable=False),
    Column("reason", String, nullable=False),
)


class StoreError(Exception):
    """Raised where the data directory cannot be used, or what is in it cannot be understood."""


class UnknownCalibration(StoreError):  # noqa: N818  (it names what is unknown)
    """Raised for the id of a calibration that was never made here."""


@dataclass(frozen=True)
class Record:
    """One calibration. `content` is what is enforced, `report` what people read; both JSON."""

    id: str
    created_at: datetime
    classifier_digest: str
    model_name: str
    model_version: str
    alpha: float
    images: int
    content: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class Activation:
    calibration_id: str
    at: datetime
    reason: str


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def new_id(created_at: datetime) -> str:
    """An id that sorts by time and that people can read."""
    return f"{created_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


class Store:
    """The embedded database of one gateway; any thread may use it."""

    def __init__(self, directory: Path) -> None:
        """Open or create the database in `directory`. Raises `StoreError`."""
        path = directory / FILE_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
            event.listen(self._engine, "connect", _configure)
            _create_schema(self._engine, path)
        except (OSError, SQLAlchemyError) as error:
            raise StoreError(f"the data directory {directory} cannot be used: {error}") from error

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the store failed: {error}") from error

    def save(self, record: Record, *, activate: bool, reason: str = "created") -> None:
        """Keep `record`, and activate it where asked, as one transaction. Raises `StoreError`."""
        with self._transaction() as connection:
            connection.execute(insert(calibrations).values(**_to_row(record)))
            if activate:
                _activate(connection, record.id, reason)

    def activate(self, id: str, reason: str) -> None:
        """Make `id` the active calibration. Raises `UnknownCalibration`, `StoreError`."""
        self.get(id)
        with self._transaction() as connection:
            _activate(connection, id, reason)

    def get(self, id: str) -> Record:
        """Raises `UnknownCalibration`."""
        with self._transaction() as connection:
            row = connection.execute(select(calibrations).where(calibrations.c.id == id)).one_or_none()
        if row is None:
            raise UnknownCalibration(f"there is no calibration {id}")
        return _from_row(row)

    def summaries(self) -> list[Record]:
        """All calibrations, the newest first, with empty `content` and `report`."""
        columns = [column for column in calibrations.c if column.name not in ("content", "report")]
        with self._transaction() as connection:
            rows = connection.execute(select(*columns).order_by(calibrations.c.number.desc())).all()
        return [_from_row(row) for row in rows]

    def active_id(self) -> str | None:
        """The id of the calibration activated last; None where there never was one."""
        history = self.history(1)
        return history[0].calibration_id if history else None

    def history(self, limit: int = 1000) -> list[Activation]:
        """Activations, the newest first."""
        query = select(activations).order_by(activations.c.number.desc()).limit(limit)
        with self._transaction() as connection:
            rows = connection.execute(query).all()
        return [Activation(row.calibration_id, datetime.fromisoformat(row.at), row.reason) for row in rows]


def _configure(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _create_schema(engine: Engine, path: Path) -> None:
    """Idempotent, so that being killed half-way does no harm; the version is written last."""
    with engine.begin() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version == SCHEMA_VERSION:
            return
        if version != 0:
            raise StoreError(
                f"{path} has schema version {version}, this Triggerwall knows {SCHEMA_VERSION}: it was made "
                "by another release"
            )
        metadata.create_all(connection)
        for table in metadata.tables:
            for verb in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(
                    f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} are never changed'); END"
                )
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")


def _activate(connection: Connection, id: str, reason: str) -> None:
    connection.execute(insert(activations).values(calibration_id=id, at=now().isoformat(), reason=reason))


def _to_row(record: Record) -> dict[str, Any]:
    texts = {"content": json.dumps(record.content), "report": json.dumps(record.report)}
    return {**record.__dict__, **texts, "created_at": record.created_at.isoformat()}


def _from_row(row: Row[Any]) -> Record:
    values = {name: value for name, value in row._mapping.items() if name != "number"}
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    for name in ("content", "report"):
        values[name] = json.loads(values[name]) if name in values else {}
    return Record(**values)
