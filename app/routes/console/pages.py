"""The pages of the console that only show something."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import HTMLResponse

from app.comparison import compare
from app.console.gallery import gallery, read_filter
from app.console.image import image_page
from app.console.incidents import incident_page, incidents_page
from app.console.overview import STEPS, live, model_facts
from app.console.query import Query, QueryError
from app.console.scores import NEWEST, scores_page
from app.console.what_if import what_if_page
from app.report_page import report_context
from app.routes.calibrations import Id, active_id
from app.routes.console.access import Visit, VisitOf, page
from app.routes.console.files import Number, Sha256
from app.schemas import CalibrationReport

router = APIRouter()


@router.get("")
async def overview(visit: VisitOf) -> Response:
    facts = model_facts(visit.gateway)
    return page(visit, "overview.html", here="overview", live=await _live(visit), **facts)


@router.get("/live")
async def live_part(visit: VisitOf) -> Response:
    """The part of the overview that its script fetches again and again."""
    return page(visit, "live.html", live=await _live(visit))


async def _live(visit: Visit) -> dict[str, object]:
    shown = Query(visit.request.query_params).text("within") or "hour"
    if shown not in STEPS:
        raise QueryError(f"within is one of {', '.join(STEPS)}", "within")
    return await asyncio.to_thread(live, visit.gateway, shown)


@router.get("/detectors")
async def detectors(visit: VisitOf) -> Response:
    shown, span = Query(visit.request.query_params).recent("within", "week")
    found = await asyncio.to_thread(scores_page, visit.gateway, span)
    spans = [*STEPS, "all"]
    return page(visit, "detectors.html", here="detectors", found=found, shown=shown, spans=spans, most=NEWEST)


@router.get("/calibrations")
async def calibrations(visit: VisitOf) -> Response:
    gateway = visit.gateway
    records = await asyncio.to_thread(gateway.store.summaries)
    history = await asyncio.to_thread(gateway.store.history, 50)
    return page(
        visit, "calibrations.html", here="calibrations", records=records, history=history,
        active=active_id(gateway), mismatch=gateway.calibrator.mismatch,
        needed=gateway.images_needed(gateway.settings.alpha), budget=gateway.settings.alpha,
        done=Query(visit.request.query_params).text("done"),
    )  # fmt: skip


@router.get("/calibrations/compare")
async def comparison(visit: VisitOf) -> Response:
    query = Query(visit.request.query_params)
    ids = [query.text("a"), query.text("b")]
    if None in ids or ids[0] == ids[1]:
        raise QueryError("choose two calibrations, a and b", "a")
    first, second = [await asyncio.to_thread(visit.gateway.store.get, str(id)) for id in ids]
    misfit = visit.gateway.calibrator.misfit
    found = await asyncio.to_thread(compare, first, second, misfit(first), misfit(second))
    return page(visit, "compare.html", here="calibrations", found=found, active=active_id(visit.gateway))


@router.get("/calibrations/{id}")
async def calibration(id: Id, visit: VisitOf) -> Response:
    gateway = visit.gateway
    record = await asyncio.to_thread(gateway.store.get, id)
    body = CalibrationReport.of(record, active_id(gateway)).model_dump(mode="json")
    context = await asyncio.to_thread(report_context, body)
    misfit = gateway.calibrator.misfit(record)
    return page(
        visit, "calibration.html", here="calibrations", misfit=misfit, active=active_id(gateway), **context
    )


@router.get("/quarantine")
async def quarantine(visit: VisitOf) -> Response:
    given = visit.request.query_params
    asked, query = read_filter(given), Query(given)
    before, marked = query.whole("before"), query.whole("marked")
    found = await asyncio.to_thread(gallery, visit.gateway, asked, before)
    return page(visit, "quarantine.html", here="quarantine", marked=marked, **found)


@router.get("/quarantine/{sha256}")
async def image(sha256: Sha256, visit: VisitOf) -> Response:
    found = await image_page(visit.gateway, sha256)
    marked = Query(visit.request.query_params).whole("marked")
    return page(visit, "image.html", here="quarantine", marked=marked, **found)


@router.get("/incidents")
async def incidents(visit: VisitOf) -> Response:
    shown, span = Query(visit.request.query_params).recent("within", "week")
    found = await asyncio.to_thread(incidents_page, visit.gateway, span)
    return page(visit, "incidents.html", here="incidents", shown=shown, spans=[*STEPS, "all"], **found)


@router.get("/incidents/{label}/{first}/{last}")
async def incident(
    label: Annotated[int, Path(ge=0, le=2**31 - 1)], first: Number, last: Number, visit: VisitOf
) -> Response:
    found = await asyncio.to_thread(incident_page, visit.gateway, label, first, last)
    marked = Query(visit.request.query_params).whole("marked")
    return page(visit, "incident.html", here="incidents", marked=marked, **found)


@router.get("/what-if")
async def what_if(visit: VisitOf) -> HTMLResponse:
    found = await asyncio.to_thread(what_if_page, visit.gateway, visit.request.query_params)
    return page(visit, "what_if.html", here="what-if", **found)
