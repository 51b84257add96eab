"""What is served, whether it lives, whether it is ready, and how it fares."""

from fastapi import APIRouter, Request, Response

from app.routes.dependencies import KEY_IS_OPTIONAL, CallerOf, GatewayOf, problems
from app.schemas import InfoBody, StatusBody

router = APIRouter(tags=["system"])


@router.get(
    "/info",
    summary="The model, its detectors, the mode and the active calibration",
    openapi_extra=KEY_IS_OPTIONAL,
)
async def info(gateway: GatewayOf, caller: CallerOf) -> InfoBody:
    return InfoBody.of(gateway, caller)


@router.get("/livez", summary="Is the process alive?", responses=problems(503))
async def livez(gateway: GatewayOf) -> StatusBody:
    """503 where the device does not return from a call, or fails on every image, which a restart mends."""
    gateway.require_alive()
    return StatusBody(status="alive")


@router.get("/readyz", summary="Should traffic come here?", responses=problems(503))
async def readyz(gateway: GatewayOf) -> StatusBody:
    """503 in enforce mode where no calibration can be enforced, where the device does not answer, and after
    SIGTERM; the problem says what to do."""
    gateway.require_ready()
    return StatusBody(status="ready")


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request, gateway: GatewayOf) -> Response:
    content, content_type = gateway.metrics.exposition(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": content_type})
