"""From monitoring to enforcing without any benign images: calibrate on traffic, and switch the mode."""

from fastapi import APIRouter, Response

from app.errors import Conflict
from app.firewall import NotCalibrated
from app.routes.dependencies import Admin, GatewayOf, problems
from app.schemas import CalibrationReport, ModeBody, TrafficCalibration

router = APIRouter(tags=["calibrations"])


@router.post(
    "/calibrations/from-traffic",
    status_code=201,
    summary="Learn what to enforce from the gateway's own traffic",
    dependencies=[Admin],
    responses=problems(400, 401, 403, 409, 422, 500, 503),
)
async def from_traffic(
    asked: TrafficCalibration, response: Response, gateway: GatewayOf
) -> CalibrationReport:
    """Calibrate on what was measured of traffic in monitor mode (setting `learn_from_traffic`).

    Nobody vouches for these images: the share `contamination` that looks least like the rest is left out.
    """
    if gateway.learner is None:
        raise Conflict("this gateway does not learn from traffic: set TRIGGERWALL_LEARN_FROM_TRAFFIC=true")
    alpha = gateway.settings.alpha if asked.alpha is None else asked.alpha
    contamination = (
        gateway.settings.learn_contamination if asked.contamination is None else asked.contamination
    )
    with gateway.calibrator.reserved():
        record = await gateway.learn(alpha, contamination, activate=asked.activate)
    response.headers["Location"] = f"/calibrations/{record.id}"
    active = gateway.calibrator.active
    return CalibrationReport.of(record, active.id if active else None)


@router.post(
    "/mode",
    summary="Enforce, or monitor only, until the next restart",
    dependencies=[Admin],
    responses=problems(400, 401, 403, 409, 422),
)
async def mode(asked: ModeBody, gateway: GatewayOf) -> ModeBody:
    """From the next batch on. Not kept: a restart brings the setting `mode` back."""
    try:
        await gateway.switch(asked.mode)
    except NotCalibrated as error:
        raise Conflict(str(error)) from error
    return ModeBody(mode=gateway.firewall.mode)
