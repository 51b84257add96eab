"""POST /classify: images in, verdicts out."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from app.context import server_timing
from app.errors import InvalidRequest, UnsupportedMediaType, kind_of
from app.firewall import Inspection
from app.forms import Form, Part, read_form
from app.gateway import Gateway, Judgement
from app.images import ImageError, UnsupportedImage
from app.policy import decide
from app.routes.dependencies import KEY_IS_OPTIONAL, GatewayOf, Sender, problems, require_admin
from app.routes.leaving import while_connected
from app.schemas import ClassifyBody, ImageProblem, ModelBody, ResultBody

router = APIRouter(tags=["classify"])

BINARY = {"type": "string", "format": "binary"}
BODIES = {
    "image/*": {"schema": BINARY},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["images"],
            "properties": {"images": {"type": "array", "items": BINARY}},
        }
    },
}
OPAQUE = "application/octet-stream"  # what clients send for a file whose kind they do not know


@router.post(
    "/classify",
    summary="Judge images, and classify those that pass",
    response_model_exclude_unset=True,  # `error` is there only where something is wrong
    responses=problems(400, 401, 403, 413, 415, 422, 429, 500, 502, 503, 504, 507),
    openapi_extra={"requestBody": {"required": True, "content": BODIES}, **KEY_IS_OPTIONAL},
)
async def classify(
    request: Request,
    response: Response,
    gateway: GatewayOf,
    caller: Sender,
    full: Annotated[bool, Query(description="Exact scores everywhere (admin, unless opened).")] = False,
    timeout_ms: Annotated[
        int | None,
        Header(
            alias="X-Request-Timeout-Ms",
            ge=1,
            description="Longest wait for the answer; the gateway's own limit at most.",
        ),
    ] = None,
) -> ClassifyBody:
    """Send one image as the body, or several as multipart parts named `images`.

    An image that cannot be read is a problem when it is the body; within a form it gets an `error` in
    its own result, and the other images are answered. An image that a detector fails on gets an `error`
    and no prediction, and is rejected or, by setting, a problem. Scores and p-values are exact for the admin
    (for everybody where the gateway opens them), and coarse for others. The admin is also told what a
    suspicious image most likely shows.
    """
    most = gateway.settings.request_timeout_ms
    deadline = time.monotonic() + min(timeout_ms or most, most) / 1000
    if full and not gateway.settings.open_scores:
        require_admin(gateway, caller)
    gateway.charge(caller)  # before anything is read
    kind = media_type(request)
    if kind == "multipart/form-data":
        images = await _from_form(request, gateway)
    elif kind.startswith("image/") or kind == OPAQUE:
        images = [await request.body()]
    else:
        raise UnsupportedMediaType("send an image (image/png, image/jpeg, ...) or multipart/form-data")
    gateway.charge(caller, len(images) - 1, more=True)
    suggest = gateway.settings.suggest_labels and caller.admin
    work = gateway.classify(images, full=full, caller=caller, deadline=deadline, suggest=suggest)
    judgement = await while_connected(request, work)
    _raise_whole(gateway, judgement, alone=kind != "multipart/form-data")
    if gateway.tells_exactly(caller):
        response.headers["Server-Timing"] = server_timing()  # how long a detector looked tells of its score
    else:
        judgement = judgement.coarse()
    return ClassifyBody(
        request_id=request.state.request_id,
        model=ModelBody(name=gateway.info.name, version=gateway.info.version),
        calibration=judgement.calibration,
        mode=judgement.mode,
        results=[_result(gateway, judgement, place) for place in range(len(judgement.results))],
    )


def _raise_whole(gateway: Gateway, judgement: Judgement, *, alone: bool) -> None:
    """Raise what is wrong with the whole request: the image that is the body, or, by setting, all images."""
    first = judgement.results[0]
    if alone and isinstance(first, ImageError):
        gateway.metrics.image_error(kind_of(first).slug)
        raise first
    unjudged = judgement.unjudged
    if gateway.settings.on_detector_failure == "error" and len(unjudged) == len(judgement.results):
        raise unjudged[0]


def media_type(request: Request) -> str:
    """The Content-Type without its parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _from_form(request: Request, gateway: Gateway) -> list[bytes | ImageError]:
    settings = gateway.settings
    form = await read_form(
        request.headers["content-type"],
        request.stream(),
        max_parts=settings.max_parts,
        limits={"images": settings.max_images},
        max_header_bytes=settings.max_part_header_bytes,
    )
    with form:
        parts = form.named("images")
        if not parts:
            raise InvalidRequest("the form has no part named `images`", "images")
        return await asyncio.to_thread(lambda: [_image(form, part) for part in parts])


def _image(form: Form, part: Part) -> bytes | ImageError:
    kind = part.content_type
    if kind is None or kind.startswith("image/") or kind == OPAQUE:
        return form.read(part)
    return UnsupportedImage("the part's Content-Type does not say that it is an image")


def _result(gateway: Gateway, judgement: Judgement, place: int) -> ResultBody:
    outcome = judgement.results[place]
    if isinstance(outcome, Inspection):
        return ResultBody.of(outcome, gateway.info)
    kind = kind_of(outcome)
    problem = ImageProblem(
        part=f"images[{place}]", type=kind.type, title=kind.title, status=kind.status, detail=str(outcome)
    )
    verdict = None
    if isinstance(outcome, ImageError):
        gateway.metrics.image_error(kind.slug)
    elif gateway.settings.on_detector_failure == "reject":
        verdict = decide([], judgement.mode)  # no detector has cleared it
    return ResultBody(verdict=verdict, prediction=None, detections=[], error=problem)
