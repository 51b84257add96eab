"""Incidents: rejections that share a predicted label and follow each other closely."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import case, func, select

from app.storage.database import Database
from app.storage.decisions import ANYTIME, SUSPICIOUS, Span, within
from app.storage.schema import decisions, quarantine

__all__ = ["Incident", "incident_images", "incidents"]

MOST = 100_000


@dataclass(frozen=True)
class Incident:
    """`rejections` of images predicted as `label`, from the decision `first_id` on to `last_id`, made
    between `first` and `last`."""

    label: int
    rejections: int
    first: datetime
    last: datetime
    first_id: int
    last_id: int


def incidents(
    database: Database,
    span: Span = ANYTIME,
    *,
    gap: timedelta = timedelta(minutes=10),
    least: int = 3,
    limit: int = 50,
    most: int = MOST,
) -> list[Incident]:
    """The incidents among the newest `most` rejections of `span`, those that were seen last first.

    An incident ends where no further rejection of its label follows within `gap`; fewer than `least`
    rejections are none. Flagged images count as rejected ones. Raises `StoreError`."""
    of = decisions.c
    asked = select(of.id, of.at, of.label).where(of.verdict.in_(SUSPICIOUS), *within(span))
    found = asked.order_by(of.id.desc()).limit(most).subquery()
    before = func.lag(found.c.at).over(partition_by=found.c.label, order_by=found.c.id)
    pause = found.c.at - before
    paused = select(found, case((pause <= gap.total_seconds(), 0), else_=1).label("begins")).subquery()
    number = func.sum(paused.c.begins).over(partition_by=paused.c.label, order_by=paused.c.id)
    numbered = select(paused, number.label("number")).subquery()
    column = numbered.c
    last = func.max(column.id)
    grouped = (
        select(
            column.label, func.count(), func.min(column.at), func.max(column.at), func.min(column.id), last
        )
        .group_by(column.label, column.number)
        .having(func.count() >= least)
        .order_by(last.desc())
        .limit(limit)
    )
    with database.read() as connection:
        rows = connection.execute(grouped).all()
    return [
        Incident(label, count, _time(first), _time(final), first_id, last_id)
        for label, count, first, final, first_id, last_id in rows
    ]


def incident_images(
    database: Database, label: int, first_id: int, last_id: int, limit: int = 100
) -> Sequence[str]:
    """The digests of up to `limit` quarantined images of an incident, those judged last first. Raises
    `StoreError`."""
    query = (
        select(quarantine.c.sha256)
        .join(decisions, decisions.c.id == quarantine.c.decision_id)
        .where(
            quarantine.c.decision_id.between(first_id, last_id),
            decisions.c.label == label,
            decisions.c.verdict.in_(SUSPICIOUS),
        )
        .order_by(quarantine.c.decision_id.desc())
        .limit(limit)
    )
    with database.read() as connection:
        return connection.execute(query).scalars().all()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
