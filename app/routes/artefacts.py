"""Calibrations as things to read, compare and carry: the report page, comparison, export and import."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from app.artefact import ArtefactError, read_artefact, write_artefact
from app.calibrator import CalibrationClash, CalibrationMismatch
from app.comparison import compare
from app.errors import Conflict, UnsupportedMediaType
from app.headers import NO_FRAMES
from app.report_page import SECURITY_POLICY, report_page
from app.routes.calibrations import Id, active_id
from app.routes.classify import media_type
from app.routes.dependencies import Admin, GatewayOf, problems
from app.schemas import CalibrationReport, ComparisonBody
from app.storage.calibrations import Record

router = APIRouter(tags=["calibrations"])

TEXT = {"schema": {"type": "string"}}
ARTEFACT = {"schema": {"type": "object", "description": "The file that an export answered."}}


@router.get(
    "/calibrations/{id}/report",
    summary="One calibration's report as a page with plots",
    response_class=Response,
    responses={200: {"content": {"text/html": TEXT}}, **problems(404, 422, 503)},
)
async def page(id: Id, gateway: GatewayOf) -> Response:
    """The page loads nothing and runs nothing, so that it can be kept as a file."""
    record = await asyncio.to_thread(gateway.store.get, id)
    body = CalibrationReport.of(record, active_id(gateway)).model_dump(mode="json")
    content = await asyncio.to_thread(report_page, body)
    headers = {"Content-Security-Policy": f"{SECURITY_POLICY}; {NO_FRAMES}"}  # <meta> may not say the latter
    return Response(content, media_type="text/html", headers=headers)


@router.get(
    "/calibrations/{a}/compare/{b}",
    summary="Two calibrations side by side",
    responses=problems(404, 422, 503),
)
async def comparison(a: Id, b: Id, gateway: GatewayOf) -> ComparisonBody:
    """`differences` says in words what changes from the first to the second."""
    first, second = [await asyncio.to_thread(gateway.store.get, id) for id in (a, b)]
    misfit = gateway.calibrator.misfit
    return ComparisonBody.model_validate(compare(first, second, misfit(first), misfit(second)))


@router.get(
    "/calibrations/{id}/export",
    summary="A calibration as one file",
    dependencies=[Admin],
    response_class=Response,
    responses={200: {"content": {"application/json": ARTEFACT}}, **problems(401, 403, 404, 422, 503)},
)
async def export(id: Id, gateway: GatewayOf) -> Response:
    """JSON with a format version and its own sha256. It holds benign scores, and benign images only where a
    detector keeps some to compare others with (STRIP)."""
    record = await asyncio.to_thread(gateway.store.get, id)
    content = await asyncio.to_thread(write_artefact, record)
    disposition = f'attachment; filename="calibration-{id}.json"'
    return Response(content, media_type="application/json", headers={"Content-Disposition": disposition})


@router.post(
    "/calibrations/import",
    status_code=201,
    summary="Take over a calibration from a file",
    dependencies=[Admin],
    responses=problems(400, 401, 403, 409, 413, 415, 422, 503),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": ARTEFACT}}},
)
async def import_(
    request: Request,
    response: Response,
    gateway: GatewayOf,
    activate: Annotated[bool, Query(description="Enforce it at once.")] = False,
) -> CalibrationReport:
    """It has to belong to the classifier and the detector settings that are served, and keeps its id.
    Importing the same file again changes nothing."""
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("send the exported file as application/json")
    record = await asyncio.to_thread(_readable, await request.body())
    try:
        record = await gateway.calibrator.adopt(record, activate=activate)
    except (CalibrationMismatch, CalibrationClash) as error:
        raise Conflict(str(error)) from error
    response.headers["Location"] = f"/calibrations/{record.id}"
    return CalibrationReport.of(record, active_id(gateway))


def _readable(data: bytes) -> Record:
    """The calibration in `data`, with a report that can be shown. Raises `ArtefactError`."""
    record = read_artefact(data)
    try:
        body: dict[str, Any] = CalibrationReport.of(record, None).model_dump(mode="json")
        report_page(body)
        compare(record, record, None, None)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValidationError, ValueError) as error:
        raise ArtefactError("the file's report cannot be shown: export it again with this release") from error
    return record
