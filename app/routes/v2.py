"""/v2: the Open Inference Protocol, for clients that already speak it."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from app.errors import UnsupportedMediaType, kind_of
from app.firewall import Inspection
from app.gateway import Gateway, Judgement
from app.images import ImageError
from app.isolation import Unjudged
from app.policy import Verdict
from app.routes.dependencies import KEY_IS_OPTIONAL, GatewayOf, Sender, problems
from app.routes.leaving import while_connected
from app.v2.errors import UnknownModel
from app.v2.metadata import LiveBody, ModelMetadata, ModelReadyBody, ReadyBody, ServerMetadata
from app.v2.outputs import answered, offered, output_tensors
from app.v2.pixels import ImageTensors
from app.v2.request import InferRequest, read_request
from models.open_inference import HEADER_LENGTH, write

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

MODEL = "/models/{name}"
VERSION = MODEL + "/versions/{version}"
BODY = {
    "application/json": {"schema": {"type": "object"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}


@router.get("", summary="The server and its extensions")
async def server() -> ServerMetadata:
    return ServerMetadata.ours()


@router.get("/health/live", summary="Is the process alive?", responses=problems(503))
async def live(gateway: GatewayOf) -> LiveBody:
    gateway.require_alive()
    return LiveBody(live=True)


@router.get("/health/ready", summary="Should traffic come here?", responses=problems(503))
async def ready(gateway: GatewayOf) -> ReadyBody:
    gateway.require_ready()
    return ReadyBody(ready=True)


@router.get(VERSION, summary="The model's inputs and outputs", responses=problems(404))
@router.get(MODEL, summary="The model's inputs and outputs", responses=problems(404))
async def model(gateway: GatewayOf, name: str, version: str | None = None) -> ModelMetadata:
    _require_model(gateway, name, version)
    return ModelMetadata.of(gateway.info, _detectors(gateway))


@router.get(VERSION + "/ready", summary="Is the model ready?", responses=problems(404, 503))
@router.get(MODEL + "/ready", summary="Is the model ready?", responses=problems(404, 503))
async def model_ready(gateway: GatewayOf, name: str, version: str | None = None) -> ModelReadyBody:
    _require_model(gateway, name, version)
    gateway.require_ready()
    return ModelReadyBody(name=gateway.info.name, ready=True)


INFER: dict[str, Any] = {
    "summary": "Judge a batch of images, and classify them",
    "response_class": Response,
    "responses": {
        200: {"content": BODY},
        **problems(400, 401, 403, 404, 413, 415, 422, 429, 500, 502, 503, 504),
    },
    "openapi_extra": {"requestBody": {"required": True, "content": BODY}, **KEY_IS_OPTIONAL},
}


@router.post(VERSION + "/infer", **INFER)
@router.post(MODEL + "/infer", **INFER)
async def infer(
    request: Request,
    gateway: GatewayOf,
    caller: Sender,
    name: str,
    version: str | None = None,
    header_length: Annotated[str | None, Header(alias=HEADER_LENGTH)] = None,
    timeout_ms: Annotated[int | None, Header(alias="X-Request-Timeout-Ms", ge=1)] = None,
) -> Response:
    """One input tensor of any name: FP32 in [0, 1] or UINT8, NCHW or NHWC, or encoded images as BYTES.

    In enforce mode a batch with a rejected row is answered 403, which names the rows; with the request
    parameter `partial` the row's label is -1 and its probabilities are all 0.
    """
    most = gateway.settings.request_timeout_ms
    deadline = time.monotonic() + min(timeout_ms or most, most) / 1000
    _require_model(gateway, name, version)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("send the body as it is: no Content-Encoding is taken")
    gateway.charge(caller)  # before anything is read
    wanted = await _read(gateway, await request.body(), header_length)
    gateway.charge(caller, len(wanted.images) - 1, more=True)
    work = gateway.classify(wanted.images, full=False, caller=caller, deadline=deadline)
    judgement = await while_connected(request, work)
    _raise_unjudged(gateway, judgement, partial=wanted.partial)
    if not gateway.tells_exactly(caller):
        judgement = judgement.coarse()
    for outcome in judgement.results:
        if isinstance(outcome, ImageError):
            gateway.metrics.image_error(kind_of(outcome).slug)
    answered(judgement.results, partial=wanted.partial)
    return _answer(gateway, wanted, judgement)


async def _read(gateway: Gateway, body: bytes, header_length: str | None) -> InferRequest:
    takes = ImageTensors(gateway.info, gateway.settings.max_pixels)
    most = gateway.settings.max_images
    return await gateway.decoders.run(read_request, body, header_length, takes, offered(gateway.info), most)


def _answer(gateway: Gateway, wanted: InferRequest, judgement: Judgement) -> Response:
    tensors = output_tensors(wanted.outputs, judgement.results, gateway.info, _detectors(gateway))
    facts = {"calibration": judgement.calibration or "", "mode": judgement.mode.value}
    uninspected = [row for row, each in enumerate(judgement.results) if _let_through(each)]
    if uninspected:
        facts["uninspected"] = ",".join(map(str, uninspected))
    head: dict[str, Any] = {
        "model_name": gateway.info.name,
        "model_version": gateway.info.version,
        "parameters": facts,
    }
    if wanted.id is not None:
        head["id"] = wanted.id
    return _encoded(*write(head, tensors, "outputs", wanted.binary))


def _let_through(outcome: Inspection | Unjudged | ImageError) -> bool:
    return isinstance(outcome, Inspection) and outcome.verdict is Verdict.UNINSPECTED


def _raise_unjudged(gateway: Gateway, judgement: Judgement, *, partial: bool) -> None:
    """By setting, rows that could not be judged are a failure and not rejected ones."""
    unjudged = judgement.unjudged
    others = len(judgement.results) - len(unjudged)
    if unjudged and gateway.settings.on_detector_failure == "error" and not (partial and others):
        raise unjudged[0]


def _encoded(body: bytes, header_length: int | None) -> Response:
    if header_length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={HEADER_LENGTH: str(header_length)}, media_type="application/octet-stream")


def _require_model(gateway: Gateway, name: str, version: str | None) -> None:
    info = gateway.info
    if name != info.name:
        raise UnknownModel(f"there is no model {name[:64]!r} here; {info.name} is served")
    if version is not None and version != info.version:
        raise UnknownModel(f"there is no version {version[:64]!r} of {name}; it is {info.version}")


def _detectors(gateway: Gateway) -> list[str]:
    return [detector.name for detector in gateway.firewall.detectors]
