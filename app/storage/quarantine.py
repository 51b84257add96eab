"""The index of the quarantine: which images are kept, what they were judged, and what people said of them.

The images themselves lie elsewhere (`blobs.py`). Every mark is kept for good in a history, also when it is
changed or its image is removed. Blocking: call it from a thread. Every method raises `StoreError` where the
database fails.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.policy import Verdict
from app.storage.database import Database
from app.storage.decisions import ANYTIME, Span, within
from app.storage.errors import UnknownImage
from app.storage.schema import decisions, detections, quarantine, reviews

__all__ = [
    "MARKS",
    "Held",
    "HeldFilter",
    "HeldPage",
    "Mark",
    "QuarantineStore",
    "Review",
    "Totals",
]

AT_ONCE = 500  # values in one IN (...)


class Mark(StrEnum):
    """What a reviewer says of an image: it carries a trigger, or it is benign and was rejected wrongly."""

    TRIGGER = "trigger"
    FALSE_ALARM = "false_alarm"


MARKS = tuple(Mark)


@dataclass(frozen=True)
class Held:
    """One image in quarantine. `decision_id`, `label`, `confidence` and `verdict` are those of the last
    decision on it; `times` says how often it came."""

    sha256: str
    decision_id: int
    stored_at: datetime
    size: int
    media_type: str
    times: int
    label: int
    confidence: float | None
    verdict: Verdict
    mark: Mark | None
    marked_by: str | None
    marked_at: datetime | None


@dataclass(frozen=True)
class HeldFilter:
    """Which images; None takes all. `span` is the time of the last decision, `detector` one that found the
    image suspicious; `reviewed` takes those with or without a mark."""

    span: Span = ANYTIME
    label: int | None = None
    verdict: Verdict | None = None
    detector: str | None = None
    mark: Mark | None = None
    reviewed: bool | None = None


@dataclass(frozen=True)
class HeldPage:
    """Images, those judged last first; `next` continues after them as `before`."""

    images: list[Held]
    next: int | None


@dataclass(frozen=True)
class Review:
    """One mark that was set, or with None taken back."""

    sha256: str
    mark: Mark | None
    by: str
    at: datetime


@dataclass(frozen=True)
class Totals:
    """What is in quarantine; `bytes` of image files."""

    images: int
    bytes: int
    marked: Mapping[Mark, int]


@dataclass(frozen=True)
class Arrival:
    """An image that has just been put into quarantine, or has come again."""

    sha256: str
    decision_id: int
    at: float
    size: int
    media_type: str


class QuarantineStore:
    """What is known of the images in quarantine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, arrivals: Sequence[Arrival]) -> None:
        """Take `arrivals` in. One that is known already points to its newest decision, and keeps its mark."""
        if not arrivals:
            return
        with self._database.write() as connection:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            statement = dialect.insert(quarantine)
            again = {"decision_id": statement.excluded.decision_id, "times": quarantine.c.times + 1}
            rows = [
                {
                    "sha256": each.sha256,
                    "decision_id": each.decision_id,
                    "stored_at": each.at,
                    "size": each.size,
                    "media_type": each.media_type,
                    "times": 1,
                }
                for each in arrivals
            ]
            connection.execute(statement.on_conflict_do_update(index_elements=["sha256"], set_=again), rows)

    def known(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that are in quarantine."""
        found: set[str] = set()
        with self._database.read() as connection:
            for some in _in_parts(digests):
                query = select(quarantine.c.sha256).where(quarantine.c.sha256.in_(some))
                found.update(connection.execute(query).scalars())
        return found

    def get(self, sha256: str) -> Held:
        """Raises `UnknownImage`."""
        with self._database.read() as connection:
            row = connection.execute(_held().where(quarantine.c.sha256 == sha256)).one_or_none()
        if row is None:
            raise UnknownImage(f"there is no image {sha256} in quarantine, or no longer")
        return _from_row(row)

    def page(self, asked: HeldFilter, *, before: int | None = None, limit: int = 50) -> HeldPage:
        """Up to `limit` images whose last decision has a number below `before`, the newest first."""
        query = _held().where(*_conditions(asked)).order_by(quarantine.c.decision_id.desc())
        if before is not None:
            query = query.where(quarantine.c.decision_id < before)
        with self._database.read() as connection:
            rows = connection.execute(query.limit(limit + 1)).all()
        found = [_from_row(row) for row in rows[:limit]]
        return HeldPage(found, found[-1].decision_id if len(rows) > limit else None)

    def count(self, asked: HeldFilter) -> int:
        """How many images `asked` takes."""
        query = _joined(select(func.count())).where(*_conditions(asked))
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def totals(self) -> Totals:
        query = select(quarantine.c.mark, func.count(), func.sum(quarantine.c.size)).group_by(
            quarantine.c.mark
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        marked = {Mark(mark): count for mark, count, _ in rows if mark is not None}
        return Totals(sum(row[1] for row in rows), sum(int(row[2]) for row in rows), marked)

    # --- reviewing --------------------------------------------------------------------------------

    def mark(self, digests: Sequence[str], mark: Mark | None, by: str) -> int:
        """Mark the images `digests`, or with None take their marks back; all as one transaction.

        Returns how many of them are in quarantine: the others are passed over."""
        at, changed = time.time(), 0
        with self._database.write() as connection:
            for some in _in_parts(list(dict.fromkeys(digests))):
                chosen = quarantine.c.sha256.in_(some)
                changed += _set_mark(connection, chosen, mark, by, at)
        return changed

    def mark_all(self, asked: HeldFilter, mark: Mark | None, by: str) -> int:
        """As `mark`, for every image that `asked` takes."""
        chosen = quarantine.c.sha256.in_(_joined(select(quarantine.c.sha256)).where(*_conditions(asked)))
        with self._database.write() as connection:
            return _set_mark(connection, chosen, mark, by, time.time())

    def reviews(self, sha256: str | None = None, limit: int = 1000) -> list[Review]:
        """Marks that were set and taken back, the newest first; of one image or of all."""
        query = select(reviews).order_by(reviews.c.number.desc()).limit(limit)
        if sha256 is not None:
            query = query.where(reviews.c.sha256 == sha256)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [
            Review(row.sha256, Mark(row.mark) if row.mark else None, row.by, _time(row.at)) for row in rows
        ]

    def marked(self, mark: Mark, limit: int) -> list[Held]:
        """The images with `mark`, those judged last first."""
        return self.page(HeldFilter(mark=mark), limit=limit).images

    # --- removing ---------------------------------------------------------------------------------

    def surplus(self, *, unmarked: float, marked: float, images: int, size: int) -> list[str]:
        """The images that have to go: those last seen before `unmarked` (Unix seconds), or `marked` where
        they are reviewed, and then the oldest until `images` and `size` bytes are kept, unreviewed first."""
        last = decisions.c.at
        query = _joined(select(quarantine.c.sha256, quarantine.c.size, quarantine.c.mark, last))
        with self._database.read() as connection:
            newest = quarantine.c.decision_id.desc()
            rows = connection.execute(query.order_by(quarantine.c.mark.is_(None), newest)).all()
        gone, count, total = [], 0, 0
        for row in rows:  # reviewed ones first, the newest first: what comes after the room is full goes
            expired = row.at < (unmarked if row.mark is None else marked)
            if expired or count + 1 > images or total + row.size > size:
                gone.append(row.sha256)
            else:
                count, total = count + 1, total + row.size
        return gone

    def forget(self, digests: Sequence[str]) -> None:
        """Drop `digests` from the index. Remove the files first: one without an entry is never found."""
        with self._database.write() as connection:
            for some in _in_parts(digests):
                connection.execute(delete(quarantine).where(quarantine.c.sha256.in_(some)))


def _set_mark(
    connection: Connection, chosen: ColumnElement[bool], mark: Mark | None, by: str, at: float
) -> int:
    digests = connection.execute(select(quarantine.c.sha256).where(chosen)).scalars().all()
    if digests:
        history = [{"sha256": each, "mark": mark, "by": by, "at": at} for each in digests]
        connection.execute(insert(reviews), history)
    for some in _in_parts(digests):
        values = {"mark": mark, "marked_by": by if mark else None, "marked_at": at if mark else None}
        connection.execute(update(quarantine).where(quarantine.c.sha256.in_(some)).values(**values))
    return len(digests)


def _held() -> Any:
    return _joined(select(quarantine, decisions.c.label, decisions.c.confidence, decisions.c.verdict))


def _joined(query: Any) -> Any:
    return query.select_from(quarantine).join(decisions, decisions.c.id == quarantine.c.decision_id)


def _conditions(asked: HeldFilter) -> list[ColumnElement[bool]]:
    found = within(asked.span, quarantine.c.decision_id)
    if asked.label is not None:
        found.append(decisions.c.label == asked.label)
    if asked.verdict is not None:
        found.append(decisions.c.verdict == asked.verdict)
    if asked.mark is not None:
        found.append(quarantine.c.mark == asked.mark)
    if asked.reviewed is not None:
        found.append(quarantine.c.mark.is_not(None) if asked.reviewed else quarantine.c.mark.is_(None))
    if asked.detector is not None:
        hit = exists().where(
            detections.c.decision_id == quarantine.c.decision_id,
            detections.c.detector == asked.detector,
            detections.c.suspicious,
        )
        found.append(hit)
    return found


def _from_row(row: Row[Any]) -> Held:
    values = dict(row._mapping)
    values.update(
        stored_at=_time(row.stored_at),
        verdict=Verdict(row.verdict),
        mark=Mark(row.mark) if row.mark else None,
        marked_at=_time(row.marked_at) if row.marked_at is not None else None,
    )
    return Held(**values)


def _in_parts(digests: Sequence[str]) -> list[Sequence[str]]:
    """For `in_`: parts of few lengths, made up with the last digest. Each length is a statement of its own,
    which the driver keeps prepared for every connection."""
    parts = [digests[start : start + AT_ONCE] for start in range(0, len(digests), AT_ONCE)]
    return [[*part, *[part[-1]] * (_length(len(part)) - len(part))] for part in parts]


def _length(count: int) -> int:
    """The least power of two, or `AT_ONCE`, that holds `count`."""
    return min(AT_ONCE, 1 << (count - 1).bit_length())


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
