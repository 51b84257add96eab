"""Images in quarantine: to look at, to mark, to remove; and the incidents they make up. For admins."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response

from app.average import average_picture
from app.batcher import DeadlineExceeded
from app.explanation import sensitivity_of, suggestion_for
from app.gateway import Gateway
from app.policy import Verdict
from app.recording_schemas import (
    ExplanationBody,
    HeldBody,
    HeldWithReviews,
    IncidentBody,
    IncidentsBody,
    MarkBody,
    MarkedBody,
    QuarantineBody,
    ReviewBody,
)
from app.routes.decisions import Before, Detector, Label, number, span_of
from app.routes.dependencies import Admin, GatewayOf, problems
from app.seen import pixels_of
from app.storage.decisions import Span
from app.storage.errors import UnknownImage
from app.storage.incidents import incident_images, incidents
from app.storage.quarantine import HeldFilter, Mark

router = APIRouter(tags=["decisions"], dependencies=[Admin])

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of an image.")]
Place = Annotated[str, Query(pattern=r"^[0-9]{1,19}$", description="Number of a decision.")]
REFUSALS = problems(401, 403, 422, 503)
PICTURE: dict[int | str, Any] = {
    200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}
}
AVERAGED = 100  # images, at most
CAREFUL = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}


async def held_filter(
    span: Annotated[Span, Depends(span_of)],
    label: Label = None,
    verdict: Verdict | None = None,
    detector: Detector = None,
    mark: Mark | None = None,
    reviewed: Annotated[bool | None, Query(description="With a mark, or without.")] = None,
) -> HeldFilter:
    return HeldFilter(span, label, verdict, detector, mark, reviewed)


@router.get("/quarantine", summary="Images in quarantine, those judged last first", responses=REFUSALS)
async def page(
    gateway: GatewayOf,
    asked: Annotated[HeldFilter, Depends(held_filter)],
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> QuarantineBody:
    store = gateway.quarantine
    found = await asyncio.to_thread(store.page, asked, before=number(before), limit=limit)
    return QuarantineBody(
        images=[HeldBody.of(each) for each in found.images],
        next=None if found.next is None else str(found.next),
        total=await asyncio.to_thread(store.count, asked),
    )


@router.post("/quarantine/marks", summary="Say what images are", responses={**REFUSALS, **problems(400)})
async def mark(said: MarkBody, gateway: GatewayOf) -> MarkedBody:
    """A `trigger` joins the regression set that new calibrations are scored on; a `false_alarm` can be added
    to the next calibration. Every mark is kept in a history with who set it and when."""
    marked = await asyncio.to_thread(gateway.quarantine.mark, said.images, said.mark, said.by)
    return MarkedBody(marked=marked)


@router.api_route("/quarantine/marks", methods=["GET", "DELETE"], include_in_schema=False)
async def not_marks() -> None:
    """Else these would be of an image called `marks`."""
    raise HTTPException(405)


@router.get("/quarantine/{sha256}", summary="One image's facts", responses={**REFUSALS, **problems(404)})
async def one(sha256: Sha256, gateway: GatewayOf) -> HeldWithReviews:
    held = await asyncio.to_thread(gateway.quarantine.get, sha256)
    said = await asyncio.to_thread(gateway.quarantine.reviews, sha256)
    reviews = [ReviewBody(mark=each.mark, by=each.by, at=each.at) for each in said]
    return HeldWithReviews(**HeldBody.of(held).model_dump(), reviews=reviews)


@router.get(
    "/quarantine/{sha256}/image",
    summary="One image, as it came",
    response_class=Response,
    responses={**PICTURE, **REFUSALS, **problems(404)},
)
async def image(sha256: Sha256, gateway: GatewayOf) -> Response:
    held = await asyncio.to_thread(gateway.quarantine.get, sha256)
    data = await asyncio.to_thread(gateway.recording.blobs.get, sha256)
    if data is None:
        raise UnknownImage(f"the file of image {sha256} is gone")
    return Response(data, media_type=held.media_type, headers=CAREFUL)


@router.get(
    "/quarantine/{sha256}/explanation",
    summary="What one image shows otherwise, and where its label comes from",
    responses={**REFUSALS, **problems(404, 502, 504)},
)
async def explanation(sha256: Sha256, gateway: GatewayOf) -> ExplanationBody:
    """Asks the classifier about fifty changed copies of the image."""
    held = await asyncio.to_thread(gateway.quarantine.get, sha256)
    seen = await asyncio.to_thread(pixels_of, gateway, sha256)
    if seen.pixels is None:
        raise UnknownImage(f"image {sha256} cannot be explained: {seen.problem}")
    asked = gateway.worker, gateway.firewall, seen.pixels, held.label
    try:
        suggested, sensitivity = await suggestion_for(*asked), await sensitivity_of(*asked)
    except TimeoutError as error:
        raise DeadlineExceeded("the device is busy with traffic: ask again") from error
    return ExplanationBody.of(held.label, suggested, sensitivity, gateway.info)


@router.delete(
    "/quarantine/{sha256}",
    status_code=204,
    summary="Remove an image for good",
    responses={**REFUSALS, **problems(404)},
)
async def remove(sha256: Sha256, gateway: GatewayOf) -> None:
    """Its decisions and the history of its marks stay: they hold no image."""
    await asyncio.to_thread(gateway.quarantine.get, sha256)
    await asyncio.to_thread(gateway.recording.retention.remove, [sha256])


@router.get("/incidents", summary="Rejections that share a label, by time", responses=REFUSALS)
async def listed(
    gateway: GatewayOf,
    span: Annotated[Span, Depends(span_of)],
    gap_s: Annotated[float, Query(gt=0, le=86_400, description="A longer pause ends an incident.")] = 600,
    least: Annotated[int, Query(ge=1, le=10_000, description="Fewest rejections.")] = 3,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> IncidentsBody:
    found = await asyncio.to_thread(
        incidents, gateway.database, span, gap=timedelta(seconds=gap_s), least=least, limit=limit
    )
    return IncidentsBody(
        incidents=[IncidentBody.of(each, gateway.info.name_of(each.label)) for each in found]
    )


@router.get(
    "/incidents/{label}/picture",
    summary="The average of an incident's images, as a PNG",
    response_class=Response,
    responses={**PICTURE, **REFUSALS, **problems(404)},
)
async def picture(
    label: Annotated[int, Path(ge=0, le=2**31 - 1)],
    first_decision: Place,
    last_decision: Place,
    gateway: GatewayOf,
) -> Response:
    """Of its 100 last images that are in quarantine, at the classifier's size."""
    first, last = number(first_decision) or 0, number(last_decision) or 0
    digests = await asyncio.to_thread(incident_images, gateway.database, label, first, last, limit=AVERAGED)
    found = await gateway.decoders.run(average_picture, _files(gateway, digests), gateway.decoder)
    if found is None:
        raise UnknownImage("no image of this incident is in quarantine")
    return Response(found, media_type="image/png", headers=CAREFUL)


def _files(gateway: Gateway, digests: Sequence[str]) -> Iterator[bytes]:
    for each in digests:
        data = gateway.recording.blobs.get(each)
        if data is not None:
            yield data
