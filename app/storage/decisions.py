"""Decisions: one small row for each image that was judged, and one for what each detector said of it.

Blocking: call it from a thread. Every method raises `StoreError` where the database fails. Queries that read
many rows look at the newest `most` decisions of the time asked, so that none takes long however much is kept.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, exists, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from app.policy import Detection, Mode, Verdict
from app.storage.database import Database
from app.storage.errors import NumberTaken, StoreError, UnknownDecision
from app.storage.ids import first_id
from app.storage.schema import decisions, detections, quarantine, traffic

__all__ = ["ANYTIME", "SUSPICIOUS", "Decision", "DecisionFilter", "DecisionStore", "Page", "Span", "Traffic"]

SUSPICIOUS = (Verdict.REJECTED, Verdict.FLAGGED)
FETCHED = 1000  # rows that an export holds at a time
REMOVED = 2_000  # decisions that one transaction goes through: others wait no longer than for these
PAUSE_S = 0.02  # between two of them: SQLite lets in who happens to ask while nobody writes


@dataclass(frozen=True)
class Decision:
    """One image judged. `label` is the classifier's, whether or not it left; `place` is that of the image in
    its request, from 0."""

    id: int
    at: datetime
    request_id: str
    place: int
    image_sha256: str
    label: int
    confidence: float | None
    verdict: Verdict
    mode: Mode
    calibration_id: str | None
    detections: tuple[Detection, ...]


@dataclass(frozen=True)
class Span:
    """From `since` (inclusive) to `until` (exclusive), both aware; None has no end."""

    since: datetime | None = None
    until: datetime | None = None


ANYTIME = Span()


@dataclass(frozen=True)
class DecisionFilter:
    """Which decisions; None takes all. `detector` takes those that this detector found suspicious."""

    span: Span = ANYTIME
    verdicts: Sequence[Verdict] | None = None
    label: int | None = None
    detector: str | None = None
    calibration_id: str | None = None
    request_id: str | None = None
    image_sha256: str | None = None


@dataclass(frozen=True)
class Page:
    """Decisions, the newest first; `next` continues after them as `before`, None where nothing follows."""

    decisions: list[Decision]
    next: int | None


@dataclass(frozen=True)
class Traffic:
    """Images by verdict from `at` on, for as long as was asked."""

    at: datetime
    images: Mapping[Verdict, int]


class DecisionStore:
    """The decisions that are kept."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: Sequence[Decision]) -> None:
        """Keep `batch`, all of it or, with `StoreError`, nothing. A batch that is kept already is not kept
        twice: a connection can break after the commit and before its answer. Raises `NumberTaken`."""
        if not batch:
            return
        try:
            with self._database.write() as connection:
                connection.execute(insert(decisions), [_to_row(each) for each in batch])
                found = [row for each in batch for row in _to_detections(each)]
                if found:
                    connection.execute(insert(detections), found)
                _count(connection, batch)
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            if not self._is_kept(batch[0]):  # a batch is kept as a whole, so that one tells for all
                raise NumberTaken("another decision has the same number") from error

    def _is_kept(self, decision: Decision) -> bool:
        columns = (decisions.c.request_id, decisions.c.place, decisions.c.image_sha256)
        with self._database.read() as connection:
            row = connection.execute(select(*columns).where(decisions.c.id == decision.id)).one_or_none()
        return row is not None and tuple(row) == (decision.request_id, decision.place, decision.image_sha256)

    def get(self, id: int) -> Decision:
        """Raises `UnknownDecision`."""
        with self._database.read() as connection:
            rows = connection.execute(select(decisions).where(decisions.c.id == id)).all()
            found = _with_detections(connection, rows)
        if not found:
            raise UnknownDecision(f"there is no decision {id}, or no longer")
        return found[0]

    def named(self, ids: Sequence[int]) -> dict[int, Decision]:
        """Those of `ids` that are kept."""
        with self._database.read() as connection:
            rows = connection.execute(select(decisions).where(decisions.c.id.in_(ids))).all()
            return {each.id: each for each in _with_detections(connection, rows)}

    def page(self, asked: DecisionFilter, *, before: int | None = None, limit: int = 50) -> Page:
        """Up to `limit` decisions with numbers below `before`, the newest first."""
        query = select(decisions).where(*_conditions(asked)).order_by(decisions.c.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(decisions.c.id < before)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            found = _with_detections(connection, rows[:limit])
        return Page(found, found[-1].id if len(rows) > limit else None)

    def every(self, asked: DecisionFilter) -> Iterator[Decision]:
        """All of them, the oldest first, with little in memory at a time. What is added or removed
        meanwhile may or may not be among them."""
        after = 0
        while True:
            query = select(decisions).where(*_conditions(asked), decisions.c.id > after)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(decisions.c.id).limit(FETCHED)).all()
                found = _with_detections(connection, rows)
            yield from found
            if len(found) < FETCHED:
                return
            after = found[-1].id

    def count(self) -> int:
        """How many are kept."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(decisions)).scalar_one()

    def traffic(self, span: Span, step_minutes: int = 1) -> list[Traffic]:
        """Images by verdict in steps of `step_minutes`, the oldest first; steps without any are left out.

        Counted as images are judged, so that retention by number does not change it."""
        step = traffic.c.minute - traffic.c.minute % step_minutes
        query = select(step.label("step"), traffic.c.verdict, func.sum(traffic.c.images))
        if span.since is not None:
            query = query.where(traffic.c.minute >= math.floor(span.since.timestamp() / 60))
        if span.until is not None:
            query = query.where(traffic.c.minute * 60 < span.until.timestamp())
        with self._database.read() as connection:
            rows = connection.execute(query.group_by("step", traffic.c.verdict)).all()
        steps: dict[int, dict[Verdict, int]] = {}
        for at, verdict, images in rows:
            steps.setdefault(int(at), {})[Verdict(verdict)] = int(images)
        return [Traffic(_time(at * 60), steps[at]) for at in sorted(steps)]

    def labels(self, span: Span, *, suspicious: bool, most: int = 100_000) -> dict[int, int]:
        """How many of the newest `most` decisions of `span` there are by predicted label; with `suspicious`
        only rejected and flagged ones are looked at."""
        query = select(decisions.c.label).where(*within(span))
        if suspicious:
            query = query.where(decisions.c.verdict.in_(SUSPICIOUS))
        newest = query.order_by(decisions.c.id.desc()).limit(most).subquery()
        counted = select(newest.c.label, func.count()).group_by(newest.c.label)
        with self._database.read() as connection:
            return {row.label: row[1] for row in connection.execute(counted)}

    def retain(self, *, oldest: datetime | None, most: int) -> int:
        """Remove decisions made before `oldest`, and the oldest beyond `most`; return how many are gone.
        What an image in quarantine was judged by stays as long as the image does."""
        removed = 0
        with self._database.read() as connection:
            beyond = connection.execute(
                select(decisions.c.id).order_by(decisions.c.id.desc()).limit(1).offset(most)
            ).scalar()
        bound = max((beyond or -1) + 1, first_id(oldest) if oldest is not None else 0)
        after: int | None = -1
        while after is not None:
            after, step = self._remove_some(after, bound)
            removed += step
            time.sleep(PAUSE_S)
        if oldest is not None:
            with self._database.write() as connection:
                connection.execute(
                    delete(traffic).where(traffic.c.minute < math.floor(oldest.timestamp() / 60))
                )
        return removed

    def _remove_some(self, after: int, bound: int) -> tuple[int | None, int]:
        """Remove the first few decisions above number `after` and below `bound`; return how far that came,
        None at the end, and how many are gone."""
        free = (decisions.c.id > after, decisions.c.id < bound, ~_held(decisions.c.id))
        some = select(decisions.c.id).where(*free).order_by(decisions.c.id).limit(REMOVED).subquery()
        with self._database.write() as connection:
            last = connection.execute(select(func.max(some.c.id))).scalar()
            if last is None:
                return None, 0
            # By range, in the database: a list of numbers would be fetched, written out and parsed again.
            gone = 0
            for id in (detections.c.decision_id, decisions.c.id):
                gone = connection.execute(delete(id.table).where(id > after, id <= last, ~_held(id))).rowcount
        return last, gone


def _held(id: ColumnElement[int]) -> ColumnElement[bool]:
    """An image in quarantine was last judged by the decision with this number."""
    return exists().where(quarantine.c.decision_id == id)


def within(span: Span, id: ColumnElement[int] = decisions.c.id) -> list[ColumnElement[bool]]:
    """The conditions that `span` puts on the number of a decision."""
    found = []
    if span.since is not None:
        found.append(id >= first_id(span.since))
    if span.until is not None:
        found.append(id < first_id(span.until))
    return found


def newest(connection: Connection, span: Span, most: int) -> int:
    """The lowest number among the newest `most` decisions of `span`; 0 where there are fewer."""
    query = select(decisions.c.id).where(*within(span)).order_by(decisions.c.id.desc())
    return connection.execute(query.limit(1).offset(most - 1)).scalar() or 0


def _conditions(asked: DecisionFilter) -> list[ColumnElement[bool]]:
    found = within(asked.span)
    if asked.verdicts is not None:
        found.append(decisions.c.verdict.in_(asked.verdicts))
    if asked.detector is not None:
        hit = exists().where(
            detections.c.decision_id == decisions.c.id,
            detections.c.detector == asked.detector,
            detections.c.suspicious,
        )
        found.append(hit)
    for name in ("label", "calibration_id", "request_id", "image_sha256"):
        if (value := getattr(asked, name)) is not None:
            found.append(decisions.c[name] == value)
    return found


def _count(connection: Connection, batch: Sequence[Decision]) -> None:
    """Add `batch` to what is counted by minute."""
    counts: dict[tuple[int, str], int] = {}
    for each in batch:
        key = (math.floor(each.at.timestamp() / 60), each.verdict.value)
        counts[key] = counts.get(key, 0) + 1
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(traffic)
    rows = [{"minute": minute, "verdict": verdict, "images": n} for (minute, verdict), n in counts.items()]
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["minute", "verdict"],
            set_={"images": traffic.c.images + statement.excluded.images},
        ),
        rows,
    )


def _to_row(decision: Decision) -> dict[str, Any]:
    row = {name: value for name, value in decision.__dict__.items() if name != "detections"}
    return {
        **row,
        "at": decision.at.timestamp(),
        "verdict": decision.verdict.value,
        "mode": decision.mode.value,
    }


def _to_detections(decision: Decision) -> Iterator[dict[str, Any]]:
    for found in decision.detections:
        yield {
            "decision_id": decision.id,
            "detector": found.detector,
            "score": _finite(found.score),
            "p_value": found.p_value,
            "threshold": _finite(found.threshold),
            "suspicious": found.suspicious,
            "exact": found.exact,
        }


def _with_detections(connection: Connection, rows: Sequence[Row[Any]]) -> list[Decision]:
    said: dict[int, list[Detection]] = {row.id: [] for row in rows}
    ids = list(said)
    for start in range(0, len(ids), FETCHED):
        query: Select[Any] = select(detections).where(
            detections.c.decision_id.in_(ids[start : start + FETCHED])
        )
        for found in connection.execute(query):
            score = math.nan if found.score is None else found.score
            threshold = math.inf if found.threshold is None else found.threshold
            said[found.decision_id].append(
                Detection(
                    found.detector, score, threshold, found.p_value, bool(found.suspicious), bool(found.exact)
                )
            )
    return [_from_row(row, tuple(said[row.id])) for row in rows]


def _from_row(row: Row[Any], found: tuple[Detection, ...]) -> Decision:
    values = dict(row._mapping)
    values.update(at=_time(row.at), verdict=Verdict(row.verdict), mode=Mode(row.mode))
    return Decision(**values, detections=found)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
