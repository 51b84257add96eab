"""POST /calibrate, and the history that it builds: what was calibrated, what is active, the way back."""

import asyncio
import itertools
from collections.abc import Iterable, Iterator
from typing import Annotated, BinaryIO, cast

from fastapi import APIRouter, Path, Request, Response

from app.archive import Archive
from app.calibrator import BenignImage, CalibrationMismatch
from app.errors import Conflict, InvalidRequest, UnsupportedMediaType
from app.forms import Form, read_form
from app.gateway import Gateway
from app.labels import LabelError
from app.routes.classify import BINARY, media_type
from app.routes.dependencies import Admin, GatewayOf, problems
from app.schemas import ActivationBody, CalibrationBody, CalibrationHistory, CalibrationReport

router = APIRouter(tags=["calibrations"])

FIELDS = ("images", "labels", "archive", "alpha", "contamination", "activate", "false_alarms")
OTHER_PARTS = 8  # archive, alpha, contamination, activate, false_alarms, and room for a mistake to be named
FORM = {
    "type": "object",
    "properties": {
        "images": {"type": "array", "items": BINARY, "description": "Benign images."},
        "labels": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Their true classes, by index or name, in the same order; all or none.",
        },
        "archive": {**BINARY, "description": "Instead of images: a zip with one folder per class."},
        "alpha": {
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
            "description": "False-positive budget over all detectors together; the setting's by default.",
        },
        "contamination": {
            "type": "number",
            "minimum": 0,
            "maximum": 0.2,
            "description": "Share of each label's images that may be poisoned; the setting's by default.",
        },
        "activate": {"type": "boolean", "default": True, "description": "Enforce it at once."},
        "false_alarms": {
            "type": "boolean",
            "default": False,
            "description": "Add the quarantined images that reviewers marked as false alarms.",
        },
    },
}
Id = Annotated[str, Path(pattern=r"^[0-9A-Za-z-]{1,64}$", description="Id of a calibration.")]


@router.post(
    "/calibrate",
    status_code=201,
    summary="Learn from benign images what to enforce",
    dependencies=[Admin],
    responses=problems(400, 401, 403, 409, 413, 415, 422, 500, 503, 507),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}},
)
async def calibrate(request: Request, response: Response, gateway: GatewayOf) -> CalibrationReport:
    """Send benign images, with their labels where they are known.

    The answer says what each detector can do on this model at the budget. Images that cannot be read are
    left out and named; where they are more than half, or the rest too few for the budget, nothing changes.
    """
    if media_type(request) != "multipart/form-data":
        raise UnsupportedMediaType("send multipart/form-data with parts named `images`, or one `archive`")
    with gateway.calibrator.reserved(), await _read(request, gateway) as form:
        alpha, activate = _alpha(form, gateway.settings.alpha), _flag(form, "activate", True)
        contamination = _contamination(form, gateway.settings.contamination)
        images, total = await asyncio.to_thread(_images, form, gateway)
        if _flag(form, "false_alarms", False):
            added, count = await asyncio.to_thread(gateway.reviewed.false_alarms)
            images, total = itertools.chain(images, added), total + count
        record = await gateway.calibrator.create(
            images, alpha, activate=activate, total=total, contamination=contamination
        )
    response.headers["Location"] = f"/calibrations/{record.id}"
    return CalibrationReport.of(record, active_id(gateway))


@router.get("/calibrations", summary="What was calibrated, and what was active when", responses=problems(503))
async def history(gateway: GatewayOf) -> CalibrationHistory:
    store, active = gateway.store, active_id(gateway)
    records = await asyncio.to_thread(store.summaries)
    activations = await asyncio.to_thread(store.history)
    return CalibrationHistory(
        active=active,
        calibrations=[CalibrationBody.of(record, active) for record in records],
        activations=[
            ActivationBody(calibration=each.calibration_id, at=each.at, reason=each.reason)
            for each in activations
        ],
    )


@router.get("/calibrations/{id}", summary="One calibration's report", responses=problems(404, 422, 503))
async def report(id: Id, gateway: GatewayOf) -> CalibrationReport:
    record = await asyncio.to_thread(gateway.store.get, id)
    return CalibrationReport.of(record, active_id(gateway))


@router.post(
    "/calibrations/{id}/activate",
    summary="Enforce a calibration again (roll back)",
    dependencies=[Admin],
    responses=problems(401, 403, 404, 409, 422, 503),
)
async def activate(id: Id, gateway: GatewayOf) -> CalibrationReport:
    """From the next batch on, images are judged by this calibration. It has to belong to the classifier
    and the detector settings that are served."""
    try:
        record = await gateway.calibrator.activate(id)
    except CalibrationMismatch as error:
        raise Conflict(str(error)) from error
    return CalibrationReport.of(record, record.id)


def active_id(gateway: Gateway) -> str | None:
    """The calibration that is enforced, which is not always the one activated last: see `mismatch`."""
    active = gateway.calibrator.active
    return active.id if active else None


async def _read(request: Request, gateway: Gateway) -> Form:
    most = gateway.settings.max_calibration_images
    return await read_form(
        request.headers["content-type"],
        request.stream(),
        max_parts=2 * most + OTHER_PARTS,
        limits={name: most if name in ("images", "labels") else 1 for name in FIELDS},
        max_header_bytes=gateway.settings.max_part_header_bytes,
    )


def _alpha(form: Form, default: float) -> float:
    for part in form.named("alpha"):
        try:
            alpha = float(form.text(part))
        except ValueError:
            alpha = float("nan")
        if not 0 < alpha < 1:
            raise InvalidRequest("alpha is a number between 0 and 1, such as 0.01", "alpha")
        return alpha
    return default


def _contamination(form: Form, default: float) -> float:
    for part in form.named("contamination"):
        try:
            contamination = float(form.text(part))
        except ValueError:
            contamination = float("nan")
        if not 0 <= contamination <= 0.2:
            raise InvalidRequest("contamination is a number from 0 to 0.2, such as 0.02", "contamination")
        return contamination
    return default


def _flag(form: Form, name: str, default: bool) -> bool:
    for part in form.named(name):
        text = form.text(part).lower()
        if text not in ("true", "false", "1", "0"):
            raise InvalidRequest(f"{name} is true or false", name)
        return text in ("true", "1")
    return default


def _images(form: Form, gateway: Gateway) -> tuple[Iterable[BenignImage], int]:
    """The images of the form and their number, checked as far as they can be without decoding any.
    Blocking."""
    unknown = next((part.field for part in form.parts if part.field not in FIELDS), None)
    if unknown is not None:
        raise InvalidRequest(f"the form has an unknown part; known are {', '.join(FIELDS)}", unknown[:80])
    images, archives = form.named("images"), form.named("archive")
    if bool(images) == bool(archives):
        raise InvalidRequest("send benign images as parts named `images`, or as one `archive`, not both")
    if not archives:
        return _from_parts(form, gateway), len(images)
    if form.named("labels"):
        raise LabelError("an archive's folders name its labels; leave out `labels`", "labels")
    settings = gateway.settings
    archive = Archive(
        cast(BinaryIO, form.open(archives[0])),
        gateway.labels.index,
        max_entries=min(settings.max_archive_entries, settings.max_calibration_images),
        max_bytes=settings.max_archive_bytes,
        max_entry_bytes=settings.max_image_bytes,
    )
    return (BenignImage(entry.name, entry.label, entry.data) for entry in archive), len(archive)


def _from_parts(form: Form, gateway: Gateway) -> Iterator[BenignImage]:
    images = form.named("images")
    texts = [form.text(part) for part in form.named("labels")]
    if texts and len(texts) != len(images):
        raise LabelError(f"there are {len(texts)} labels for {len(images)} images: send one each", "labels")
    labels: list[int | None] = [gateway.labels.index(t, f"labels[{n}]") for n, t in enumerate(texts)]
    return (
        BenignImage(part.filename or f"images[{number}]", label, form.read(part))
        for number, (part, label) in enumerate(zip(images, labels or [None] * len(images), strict=True))
    )
