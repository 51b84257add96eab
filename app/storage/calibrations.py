"""Calibrations, and the history of which one was active. Rows are never changed or removed.

Blocking: call it from a thread. Every method raises `StoreError` where the database fails.
"""

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from app.storage.database import Database
from app.storage.errors import UnknownCalibration
from app.storage.hints import announce
from app.storage.schema import activations, calibrations

__all__ = ["Activation", "CalibrationStore", "Record", "new_id", "now"]


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


class CalibrationStore:
    """Every calibration ever made here, and what was active when."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, record: Record, *, activate: bool, reason: str = "created") -> None:
        """Keep `record`, and activate it where asked, as one transaction. Raises `StoreError`."""
        with self._database.write() as connection:
            connection.execute(insert(calibrations).values(**_to_row(record)))
            if activate:
                _activate(connection, record.id, reason)

    def activate(self, id: str, reason: str) -> None:
        """Make `id` the active calibration. Raises `UnknownCalibration`, `StoreError`."""
        self.get(id)
        with self._database.write() as connection:
            _activate(connection, id, reason)

    def get(self, id: str) -> Record:
        """Raises `UnknownCalibration`."""
        with self._database.read() as connection:
            row = connection.execute(select(calibrations).where(calibrations.c.id == id)).one_or_none()
        if row is None:
            raise UnknownCalibration(f"there is no calibration {id}")
        return _from_row(row)

    def summaries(self) -> list[Record]:
        """All calibrations, the newest first, with empty `content` and `report`."""
        columns = [column for column in calibrations.c if column.name not in ("content", "report")]
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).order_by(calibrations.c.number.desc())).all()
        return [_from_row(row) for row in rows]

    def active_id(self) -> str | None:
        """The id of the calibration activated last; None where there never was one."""
        history = self.history(1)
        return history[0].calibration_id if history else None

    def history(self, limit: int = 1000) -> list[Activation]:
        """Activations, the newest first."""
        query = select(activations).order_by(activations.c.number.desc()).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Activation(row.calibration_id, datetime.fromisoformat(row.at), row.reason) for row in rows]


def _activate(connection: Connection, id: str, reason: str) -> None:
    connection.execute(insert(activations).values(calibration_id=id, at=now().isoformat(), reason=reason))
    announce(connection)


def _to_row(record: Record) -> dict[str, Any]:
    texts = {"content": json.dumps(record.content), "report": json.dumps(record.report)}
    return {**record.__dict__, **texts, "created_at": record.created_at.isoformat()}


def _from_row(row: Row[Any]) -> Record:
    values = {name: value for name, value in row._mapping.items() if name != "number"}
    values["created_at"] = datetime.fromisoformat(values["created_at"])
    for name in ("content", "report"):
        values[name] = json.loads(values[name]) if name in values else {}
    return Record(**values)
