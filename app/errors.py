"""Exceptions → RFC 9457 problems, in one table.

Problem                the HTTP layer's own refusals
 ├─ Unauthorized         a key is missing or wrong
 │   └─ SignedOut          the console knows no session, or no longer
 ├─ Forbidden            the path answers nobody from there
 ├─ UnsupportedMediaType the body is of a kind the path does not take
 ├─ NotFound             there is nothing of that name
 ├─ Conflict             the gateway is not in a state for that
 └─ InvalidRequest       fields that make no sense together

Everything else is raised by the module where it happens, under the name it has there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.archive import ArchiveError
from app.artefact import ArtefactError
from app.batcher import Closed, DeadlineExceeded, Overloaded
from app.calibrator import CalibrationBusy, CalibrationChanged, CalibrationMismatch, UnusableImages
from app.callers.quota import RateLimited
from app.console.query import QueryError
from app.console.rendering import POLICY, problem_page
from app.firewall import NotCalibrated
from app.follower import StaleCalibration
from app.forms import FormError, NoRoom, TooManyParts
from app.gateway import OutOfOrder
from app.images import EmptyImage, ImageError, OversizedImage, UnreadableImage, UnsupportedImage
from app.isolation import Unjudged
from app.labels import LabelError
from app.middleware import CLIENT_GONE
from app.replicas.dispatcher import ScorerLost
from app.replicas.firewall import Unchangeable
from app.replicas.scorer import OtherClassifier
from app.serving.bodies import BodyTooLarge, BodyTooSlow, TooMuchInFlight
from app.storage.errors import StoreError, UnknownCalibration, UnknownDecision, UnknownImage
from app.v2.errors import BadRequest, RejectedRows, UnknownModel
from app.worker import WorkerDied
from detectors.base import CalibrationError, DetectorError
from models.errors import BadUpstreamAnswer, ModelError, UpstreamError, UpstreamTimeout, UpstreamUnavailable

__all__ = [
    "CONTENT_TYPE",
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "Kind",
    "NotFound",
    "Problem",
    "SignedOut",
    "Unauthorized",
    "UnsupportedMediaType",
    "hidden",
    "kind_of",
    "register",
    "unexpected",
]

URN = "urn:triggerwall:problem:"
CONTENT_TYPE = "application/problem+json"
V2 = "/v2"
CONSOLE = "/console"


class Problem(Exception):  # noqa: N818  (RFC 9457's own word)
    """Base of the HTTP layer's own refusals; `part` names the part of the request at fault."""

    def __init__(self, detail: str, part: str | None = None) -> None:
        super().__init__(detail)
        self.part = part


class Unauthorized(Problem):
    """Raised where X-API-Key is missing or wrong."""


class SignedOut(Unauthorized):
    """Raised on pages of the console; `back` is the path and query to come back to after the sign-in."""

    def __init__(self, detail: str, back: str) -> None:
        super().__init__(detail)
        self.back = back


class Forbidden(Problem):
    """Raised on admin paths where no key is configured and the caller may not be this machine."""


class UnsupportedMediaType(Problem):
    """Raised for a Content-Type that the path does not take."""


class NotFound(Problem):
    """Raised for a name that nothing has."""


class Conflict(Problem):
    """Raised where the state of the gateway does not allow what was asked."""


class InvalidRequest(Problem):
    """Raised for fields that are missing, unknown, or contradict each other."""


@dataclass(frozen=True)
class Kind:
    """One row of the table. `told` is false where the exception's text is not for the caller."""

    status: int
    slug: str
    title: str
    told: bool = True

    @property
    def type(self) -> str:
        return URN + self.slug


KINDS: dict[type[Exception], Kind] = {
    Unauthorized: Kind(401, "unauthorized", "A valid X-API-Key is needed"),
    Forbidden: Kind(403, "forbidden", "Not from here"),
    BadRequest: Kind(400, "malformed-tensors", "The inference request cannot be read"),
    RejectedRows: Kind(403, "rejected", "The firewall rejected images"),
    UnknownModel: Kind(404, "unknown-model", "There is no such model"),
    UnsupportedMediaType: Kind(415, "unsupported-media-type", "This Content-Type is not taken"),
    NotFound: Kind(404, "not-found", "There is no such thing"),
    Conflict: Kind(409, "conflict", "The gateway's state does not allow it"),
    InvalidRequest: Kind(422, "invalid-request", "The request makes no sense"),
    EmptyImage: Kind(422, "empty-image", "The image is empty"),
    UnreadableImage: Kind(422, "unreadable-image", "The image cannot be read"),
    UnsupportedImage: Kind(415, "unsupported-image", "This kind of image is not taken"),
    OversizedImage: Kind(413, "image-too-large", "The image is too large"),
    ImageError: Kind(422, "unreadable-image", "The image cannot be read"),
    BodyTooLarge: Kind(413, "body-too-large", "The body is too large"),
    BodyTooSlow: Kind(408, "too-slow", "The body did not come in time"),
    TooMuchInFlight: Kind(503, "overloaded", "Too much is waiting"),
    TooManyParts: Kind(413, "too-many-parts", "The form has too many parts"),
    NoRoom: Kind(507, "no-room", "There is no room for the body"),
    FormError: Kind(400, "malformed-form", "The form cannot be read"),
    ArchiveError: Kind(422, "archive-refused", "The archive is not taken"),
    LabelError: Kind(422, "label-mismatch", "The labels do not fit"),
    UnusableImages: Kind(422, "unusable-images", "Too many images cannot be read"),
    CalibrationError: Kind(422, "calibration-refused", "The images do not support this calibration"),
    ArtefactError: Kind(422, "artefact-refused", "The calibration file is not taken"),
    CalibrationBusy: Kind(409, "calibration-busy", "Another calibration is under way"),
    CalibrationChanged: Kind(409, "calibration-changed", "Another calibration is active by now"),
    QueryError: Kind(422, "invalid-request", "The request makes no sense"),
    CalibrationMismatch: Kind(503, "calibration-mismatch", "The calibration belongs to something else"),
    UnknownCalibration: Kind(404, "unknown-calibration", "There is no such calibration"),
    UnknownDecision: Kind(404, "unknown-decision", "There is no such decision"),
    UnknownImage: Kind(404, "unknown-image", "There is no such image in quarantine"),
    RateLimited: Kind(429, "rate-limited", "Too many images"),
    ScorerLost: Kind(503, "scorer-lost", "No scorer answered"),
    OtherClassifier: Kind(503, "classifier-changing", "Another model is being rolled out"),
    Unchangeable: Kind(409, "conflict", "The gateway's state does not allow it"),
    StaleCalibration: Kind(503, "calibration-stale", "The active calibration cannot be confirmed"),
    OutOfOrder: Kind(503, "device-stuck", "The device does not answer"),
    WorkerDied: Kind(503, "not-judged", "The image could not be judged", told=False),
    Unjudged: Kind(503, "not-judged", "The image could not be judged"),
    NotCalibrated: Kind(503, "not-calibrated", "Nothing to judge by yet"),
    Overloaded: Kind(503, "overloaded", "Too much is waiting"),
    DeadlineExceeded: Kind(504, "deadline-exceeded", "The answer would come too late"),
    Closed: Kind(503, "shutting-down", "The gateway is shutting down"),
    StoreError: Kind(
        503,
        "store-failed",
        "The store cannot be read or written (a full disk, a database that is away)",
        told=False,
    ),
    DetectorError: Kind(500, "detector-failed", "A detector could not judge", told=False),
    UpstreamTimeout: Kind(504, "upstream-timeout", "The remote classifier did not answer in time"),
    UpstreamUnavailable: Kind(503, "upstream-unavailable", "The remote classifier is not available"),
    BadUpstreamAnswer: Kind(502, "upstream-failed", "The remote classifier gave no usable answer"),
    UpstreamError: Kind(502, "upstream-failed", "The remote classifier gave no usable answer"),
    ModelError: Kind(500, "classifier-failed", "The classifier failed", told=False),
}
UNEXPECTED = Kind(500, "internal-error", "Something unforeseen happened", told=False)
UNTOLD = "the request could not be answered; its id leads to the reason in the gateway's log"


def kind_of(error: Exception) -> Kind:
    """The row of the table for `error`: that of the nearest class it is one of."""
    return next((KINDS[cls] for cls in type(error).__mro__ if cls in KINDS), UNEXPECTED)


def register(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Answer every exception of the table, and the framework's own, as problems. `routers` are the app's."""
    app.state.routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    for cls in KINDS:
        app.add_exception_handler(cls, _known)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _invalid)


async def unexpected(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI answer where something raised that nobody foresaw. It says nothing of what it was."""
    request = Request(scope, receive)
    await _problem(request, UNEXPECTED, UNTOLD)(scope, receive, send)


async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI answer for a path that this port does not show: that of a path which is not there."""
    request = Request(scope, receive)
    await _framework(request, HTTPException(404))(scope, receive, send)


def _known(request: Request, error: Exception) -> Response:
    if isinstance(error, SignedOut):
        return RedirectResponse(f"{CONSOLE}/sign-in?" + urlencode({"next": error.back}), 303)
    kind = kind_of(error)
    extra = dict(getattr(error, "extra", {}))
    if (part := getattr(error, "part", None)) is not None:
        extra["part"] = part
    return _problem(request, kind, str(error) if kind.told else UNTOLD, extra, _headers(error))


def _gone(_: Request, __: Exception) -> Response:
    """Nobody is left to answer; 499 is what nginx calls it. Not a fault of the gateway's."""
    return Response(status_code=CLIENT_GONE)


def _headers(error: Exception) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'ApiKey realm="triggerwall"'}
    retry_after = getattr(error, "retry_after", None)
    return {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}


def _framework(request: Request, error: Exception) -> Response:
    """404, 405 and the like: generic, so their type is about:blank."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
        headers["Allow"] = ", ".join(methods)
    return _problem(request, Kind(error.status_code, "", title), str(error.detail), {}, headers)


def _methods(request: Request) -> list[str]:
    """Those of all routes with the path that matched; the framework names those of the first."""
    routes: Sequence[APIRoute] = [each for each in request.app.state.routes if each.include_in_schema]
    paths = [route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes if route.path in paths[:1] for method in route.methods or ()})


def _invalid(request: Request, error: Exception) -> Response:
    """What the declared parameters do not allow; the caller's own input is not sent back."""
    assert isinstance(error, RequestValidationError)
    faults = [{"at": ".".join(map(str, each["loc"])), "detail": each["msg"]} for each in error.errors()]
    detail = "; ".join(f"{fault['at']}: {fault['detail']}" for fault in faults)
    return _problem(request, KINDS[InvalidRequest], detail, {"errors": faults})


def _problem(
    request: Request,
    kind: Kind,
    detail: str,
    extra: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    request.app.state.gateway.metrics.problem(kind.slug or f"http-{kind.status}")
    body = {
        "type": kind.type if kind.slug else "about:blank",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "instance": request.url.path,
        "request_id": request.state.request_id,
        **(extra or {}),
    }
    if f"{request.url.path}/".startswith(f"{CONSOLE}/"):
        return HTMLResponse(
            problem_page(body), kind.status, {**(headers or {}), "Content-Security-Policy": POLICY}
        )
    if request.url.path.startswith(V2 + "/"):
        # Where clients of the Open Inference Protocol look; KServe's only in plain JSON.
        return JSONResponse({**body, "error": detail}, kind.status, headers)
    return JSONResponse(body, kind.status, headers, CONTENT_TYPE)
