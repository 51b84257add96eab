"""The gateway as an ASGI application: wiring and lifespan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from app import errors
from app.admission import Admission
from app.assembly import build_firewall
from app.firewall import Firewall
from app.gateway import DeviceRequest, Gateway, Judged
from app.headers import AdminPort, SecurityHeaders
from app.middleware import RequestContext
from app.routes import (
    artefacts,
    calibrations,
    classify,
    console,
    decisions,
    docs,
    learning,
    quarantine,
    system,
    v2,
)
from app.routes.console.access import Console
from app.serving.bodies import BodyLimit, BodyRules
from app.settings import Settings
from app.tracing import open_spans

__all__ = ["create_app"]

TAGS = [
    {"name": "classify", "description": "Images in, verdicts out."},
    {"name": "open inference protocol", "description": "The same for KServe's and Triton's clients."},
    {"name": "calibrations", "description": "What is learnt from benign images, and enforced."},
    {"name": "decisions", "description": "What was decided and kept, for admins."},
    {"name": "system", "description": "For operators and their machines."},
]
# /calibrations/{id} comes after /calibrations/import, which it would match too.
ROUTERS = tuple(
    each.router
    for each in (
        classify,
        v2,
        artefacts,
        learning,
        calibrations,
        decisions,
        quarantine,
        system,
        docs,
        console,
    )
)


def create_app(
    settings: Settings | None = None,
    firewall: Firewall | None = None,
    elsewhere: Admission[DeviceRequest, Judged] | None = None,
) -> FastAPI:
    """One gateway. Without `firewall` the bundle that `settings` names is loaded and guarded; with
    `elsewhere` images are judged there.

    Loads the model and opens the store at once, so that what is wrong with either is raised here, as a
    `ModelError`, `DetectorError`, `StoreError` or `ValueError` with one sentence for the operator. Threads
    start, and the active calibration is restored, with the application's lifespan.
    """
    settings = settings or Settings()
    spans = open_spans(settings.otlp_endpoint)
    gateway = Gateway(settings, firewall or build_firewall(settings), elsewhere)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.close()
            await asyncio.to_thread(spans.close)

    app = FastAPI(
        title="Triggerwall",
        summary="An inference firewall for image classifiers: it stops backdoor triggers.",
        version=version("triggerwall"),
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,  # ours need nobody's network: app.routes.docs
        redoc_url=None,
    )
    app.state.gateway = gateway
    app.state.console = Console(gateway)
    for router in ROUTERS:
        app.include_router(router)
    errors.register(app, ROUTERS)
    app.add_middleware(BodyLimit, rules=_body_rules(settings))
    if settings.admin_port is not None:
        app.add_middleware(AdminPort, port=settings.admin_port, hidden=errors.hidden)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestContext, metrics=gateway.metrics, unexpected=errors.unexpected, spans=spans)
    return app


def _body_rules(settings: Settings) -> BodyRules:
    by_path = {
        "/calibrate": settings.max_calibration_body_bytes,
        "/calibrations/import": settings.max_artefact_bytes,
    }
    return BodyRules(
        largest=settings.max_body_bytes,
        by_path=by_path,
        patience_s=settings.body_timeout_s,
        least_rate=settings.least_upload_rate,
        in_flight=settings.max_in_flight_bytes,
        spooled=frozenset({"/calibrate"}),
    )
