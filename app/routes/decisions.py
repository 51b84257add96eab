"""What was decided: to list, count, export, and to ask what other thresholds would have done. For admins."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse

from app.errors import InvalidRequest
from app.gateway import Gateway
from app.policy import Verdict
from app.recording_schemas import (
    DecisionBody,
    DecisionsBody,
    DistributionBody,
    Moment,
    TrafficBody,
    WhatIfAsked,
    WhatIfBody,
)
from app.routes.dependencies import Admin, GatewayOf, problems
from app.settings import DetectorName
from app.storage.decisions import DecisionFilter, Span
from app.storage.what_if import Rules, score_distribution, what_if

router = APIRouter(prefix="/decisions", tags=["decisions"], dependencies=[Admin])


Number = Annotated[int, Path(ge=0, lt=10**19, description="Number of a decision.")]
Before = Annotated[str | None, Query(pattern=r"^[0-9]{1,19}$", description="`next` of the page before.")]
Since = Annotated[Moment | None, Query(description="From then on, as 2026-01-31T12:00:00Z.")]
Until = Annotated[Moment | None, Query(description="Up to, and without, then.")]
Label = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Predicted label.")]
Detector = Annotated[DetectorName | None, Query(description="That found the image suspicious.")]
Most = Annotated[int, Query(ge=1, le=1_000_000, description="Newest decisions to look at.")]
REFUSALS = problems(401, 403, 422, 503)
NDJSON = "application/x-ndjson"
LONGEST = timedelta(days=366)
LARGEST = 2**63 - 1  # number that the database takes


async def span_of(since: Since = None, until: Until = None) -> Span:
    return Span(since, until)


async def filter_of(
    span: Annotated[Span, Depends(span_of)],
    verdict: Annotated[list[Verdict] | None, Query(max_length=3)] = None,
    label: Label = None,
    detector: Detector = None,
    calibration: Annotated[str | None, Query(pattern=r"^[0-9A-Za-z-]{1,64}$")] = None,
    request_id: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9._-]{1,64}$")] = None,
    image_sha256: Annotated[str | None, Query(pattern=r"^[0-9a-f]{64}$")] = None,
) -> DecisionFilter:
    return DecisionFilter(span, verdict, label, detector, calibration, request_id, image_sha256)


Asked = Annotated[DecisionFilter, Depends(filter_of)]


@router.get("", summary="Decisions, the newest first", responses=REFUSALS)
async def page(
    gateway: GatewayOf,
    asked: Asked,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> DecisionsBody:
    found = await asyncio.to_thread(gateway.decisions.page, asked, before=number(before), limit=limit)
    return DecisionsBody(
        decisions=[DecisionBody.of(each) for each in found.decisions],
        next=None if found.next is None else str(found.next),
    )


@router.get("/traffic", summary="Images by verdict and time", responses=REFUSALS)
async def traffic(
    gateway: GatewayOf,
    since: Since = None,
    until: Until = None,
    step_minutes: Annotated[int, Query(ge=1, le=1440)] = 1,
) -> TrafficBody:
    """The last day where `since` is not given; a year at most."""
    until = until or datetime.now(UTC) + timedelta(minutes=1)
    since = since or until - timedelta(days=1)
    if until - since > LONGEST:
        raise InvalidRequest("ask for a year at most", "since")
    found = await asyncio.to_thread(gateway.decisions.traffic, Span(since, until), step_minutes)
    steps = [{"at": each.at, "images": each.images} for each in found]
    return TrafficBody.model_validate({"step_minutes": step_minutes, "steps": steps})


@router.get("/scores", summary="How one detector's scores are distributed", responses=REFUSALS)
async def scores(
    gateway: GatewayOf,
    span: Annotated[Span, Depends(span_of)],
    detector: Annotated[DetectorName, Query()],
    bins: Annotated[int, Query(ge=1, le=200)] = 40,
    most: Most = 100_000,
) -> DistributionBody:
    found = await asyncio.to_thread(
        score_distribution, gateway.database, detector, span, bins=bins, most=most
    )
    return DistributionBody(detector=detector, **found.__dict__)


@router.post(
    "/what-if",
    summary="What other thresholds would have rejected",
    responses={**REFUSALS, **problems(400)},
)
async def other(asked: WhatIfAsked, gateway: GatewayOf) -> WhatIfBody:
    """Over stored decisions; nothing changes."""
    rules = Rules(asked.thresholds, {} if asked.alpha is None else gateway.p_limits(asked.alpha))
    span = Span(asked.since, asked.until)
    return WhatIfBody.of(await asyncio.to_thread(what_if, gateway.database, rules, span, asked.most))


@router.get(
    "/export",
    summary="Decisions as JSON Lines, the oldest first",
    response_class=StreamingResponse,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}, **REFUSALS},
)
async def export(gateway: GatewayOf, asked: Asked) -> StreamingResponse:
    """One decision per line. Few are in memory at a time."""
    headers = {"Content-Disposition": 'attachment; filename="decisions.jsonl"'}
    return StreamingResponse(_lines(gateway, asked), media_type=NDJSON, headers=headers)


@router.get("/{id:int}", summary="One decision", responses={**REFUSALS, **problems(404)})
async def one(id: Number, gateway: GatewayOf) -> DecisionBody:
    return DecisionBody.of(await asyncio.to_thread(gateway.decisions.get, min(id, LARGEST)))


def number(text: str | None) -> int | None:
    """The number of a decision, as large as the database takes it."""
    return None if text is None else min(int(text), LARGEST)


def _lines(gateway: Gateway, asked: DecisionFilter) -> Iterator[str]:
    for each in gateway.decisions.every(asked):
        yield DecisionBody.of(each).model_dump_json() + "\n"
