"""What stored decisions would have been at other thresholds, and how their scores are distributed.

A detector that stopped early left a bound and not its score, on the side that decided: an upper bound of an
image that it cleared, a lower one of an image that it found suspicious. At another threshold such a bound
may settle nothing, so numbers come as `at_least` and `at_most`; they are equal where every score is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    case,
    false,
    func,
    not_,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from app.storage.database import Database
from app.storage.decisions import ANYTIME, Span, newest, within
from app.storage.quarantine import MARKS, Mark
from app.storage.schema import detections, quarantine

__all__ = ["Distribution", "Outcome", "Rules", "WhatIf", "score_distribution", "what_if"]

MOST = 100_000


@dataclass(frozen=True)
class Rules:
    """When an image would be rejected: by any detector whose score is above its entry in `thresholds`, or
    whose p-value is at most its entry in `p_limits`. A detector named in both goes by its threshold; one
    named in neither goes by what it said."""

    thresholds: Mapping[str, float]
    p_limits: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """Of `decisions` images, so many were suspicious, and would be."""

    decisions: int
    suspicious: int
    at_least: int
    at_most: int


@dataclass(frozen=True)
class WhatIf:
    """`all` of the newest decisions that were looked at, from the time `since` on; `marked` are the images
    in quarantine by their mark, whenever they came, each once."""

    since: datetime | None
    all: Outcome
    marked: Mapping[Mark, Outcome]


@dataclass(frozen=True)
class Distribution:
    """Scores of one detector: `cleared` and `suspicious` counts between neighbouring `edges`, and those that
    are bounds among them. `threshold` is the last one used; None where none was or no score is above it."""

    edges: list[float]
    cleared: list[int]
    suspicious: list[int]
    bounds: int
    threshold: float | None


def what_if(database: Database, rules: Rules, span: Span = ANYTIME, most: int = MOST) -> WhatIf:
    """Apply `rules` to the newest `most` decisions of `span`, and to every marked image in quarantine.

    Images that no detector looked at are left out. Raises `StoreError`."""
    id = detections.c.decision_id
    with database.read() as connection:
        low = newest(connection, span, most)
        everything = _outcome(connection, rules, select(id).where(*within(span, id), id >= low))
        marked = {
            mark: _outcome(connection, rules, select(id).where(id.in_(_decisions_on(mark)))) for mark in MARKS
        }
    return WhatIf(span.since, everything, marked)


def _decisions_on(mark: Mark) -> Select[tuple[int]]:
    """A subquery and no join: databases then look these few up instead of reading all detections."""
    return select(quarantine.c.decision_id).where(quarantine.c.mark == mark)


def _outcome(connection: Connection, rules: Rules, of: Select[Any]) -> Outcome:
    certain, possible = _verdicts(rules)
    columns = {"was": detections.c.suspicious, "certain": certain, "possible": possible}
    flags = [func.max(case((column, 1), else_=0)).label(name) for name, column in columns.items()]
    images = of.add_columns(*flags).group_by(detections.c.decision_id).subquery()
    sums = [func.coalesce(func.sum(images.c[name]), 0) for name in columns]
    counts = connection.execute(select(func.count(), *sums).select_from(images)).one()
    return Outcome(*map(int, counts))


def _verdicts(rules: Rules) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Is a detection suspicious under `rules` for certain, and could it be?"""
    said = detections.c.suspicious
    exact = detections.c.exact
    certain, possible = [], []
    for name in {*rules.thresholds, *rules.p_limits}:
        of_it = detections.c.detector == name
        if name in rules.thresholds:
            # A score that is no number is stored as null and never cleared.
            hit = or_(detections.c.score.is_(None), detections.c.score > rules.thresholds[name])
        else:
            hit = func.coalesce(detections.c.p_value <= rules.p_limits[name], said)
        certain.append(and_(of_it, hit, or_(exact, said)))
        possible.append(and_(of_it, or_(hit, and_(not_(exact), said))))
    as_it_was = and_(detections.c.detector.not_in({*rules.thresholds, *rules.p_limits}), said)
    return or_(as_it_was, *certain, false()), or_(as_it_was, *possible, false())


class _Whole(FunctionElement[int]):
    """The largest integer not above a number that is not negative."""

    type = Integer()
    inherit_cache = True


@compiles(_Whole)
def _floor(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST(floor({compiler.process(element.clauses, **options)}) AS INTEGER)"


@compiles(_Whole, "sqlite")
def _truncate(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS INTEGER)"


def score_distribution(
    database: Database,
    detector: str,
    span: Span = ANYTIME,
    *,
    bins: int = 40,
    most: int = MOST,
    highest: float | None = None,
) -> Distribution:
    """How the scores of `detector` are distributed over the newest `most` decisions of `span`. Scores that
    are no number are left out; those above `highest` are counted in the last bin, which ends there. Raises
    `StoreError`."""
    column = detections.c
    with database.read() as connection:
        asked = [
            column.detector == detector,
            column.score.is_not(None),
            column.decision_id >= newest(connection, span, most),
            *within(span, column.decision_id),
        ]
        low, high = connection.execute(
            select(func.min(column.score), func.max(column.score)).where(*asked)
        ).one()
        if low is None:
            return Distribution([], [], [], 0, None)
        if highest is not None and low < highest < high:
            high = highest
        width = (high - low) / bins or 1.0
        place = _Whole(case((column.score > high, bins - 1), else_=(column.score - low) / width)).label(
            "place"
        )
        counts = select(place, column.suspicious, func.count(), func.sum(case((column.exact, 0), else_=1)))
        rows = connection.execute(counts.where(*asked).group_by("place", column.suspicious)).all()
        last = select(column.threshold).where(*asked).order_by(column.decision_id.desc()).limit(1)
        threshold = connection.execute(last).scalar()
    cleared, suspicious, bounds = [0] * bins, [0] * bins, 0
    for number, said, count, inexact in rows:
        of = suspicious if said else cleared
        of[min(int(number), bins - 1)] += count
        bounds += int(inexact)
    return Distribution([low + width * n for n in range(bins + 1)], cleared, suspicious, bounds, threshold)
