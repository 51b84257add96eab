"""What the console's forms do: sign in and out, mark images, activate a calibration, switch the mode.

Every form carries its session's token. What could surprise somebody else asks first, and is refused where
things are no longer as the asking page showed them.
"""

import asyncio
import logging

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from app.calibrator import CalibrationMismatch
from app.comparison import compare
from app.console.gallery import FIELDS, read_filter
from app.console.query import Query, QueryError
from app.console.session import COOKIE
from app.errors import Conflict
from app.firewall import NotCalibrated
from app.policy import Mode
from app.routes.calibrations import Id
from app.routes.console.access import (
    HOME,
    NOBODY,
    Fields,
    Form,
    VisitOf,
    VisitorOf,
    first,
    page,
    read_fields,
    redirect,
    require_token,
    set_cookie,
)
from app.routes.console.files import Number
from app.storage.incidents import incident_images
from app.storage.quarantine import Mark

router = APIRouter()
log = logging.getLogger("triggerwall.console")

LONGEST_NAME = 60  # of an operator
MOST = 1000  # images of an incident that are marked at once


# --- signing in and out ---------------------------------------------------------------------------


@router.get("/sign-in")
async def sign_in_page(visitor: VisitorOf) -> Response:
    back = _within(visitor.request.query_params.get("next", ""))
    return page(visitor, "sign_in.html", back=back, wrong=False, open=not visitor.gateway.keys.has_admin)


@router.post("/sign-in")
async def sign_in(visitor: VisitorOf) -> Response:
    """A new session, so that what was known of the one before is worth nothing."""
    fields = await read_fields(visitor.request)
    require_token(visitor, fields)
    back = _within(first(fields, "next"))
    owner = visitor.gateway.keys.owner(first(fields, "key").strip())
    if owner is None or not owner.admin:
        log.warning("somebody tried to sign in to the console with a wrong key")
        return page(visitor, "sign_in.html", 401, back=back, wrong=True, open=False)
    name = " ".join(first(fields, "name").split())[:LONGEST_NAME]
    answer = RedirectResponse(back, 303)
    set_cookie(visitor, answer, visitor.console.sessions.open(name or NOBODY))
    return answer


@router.post("/sign-out")
async def sign_out(visit: VisitOf, _: Form) -> Response:
    await asyncio.to_thread(visit.console.sessions.end, visit.session)
    answer = redirect(f"{HOME}/sign-in")
    answer.delete_cookie(COOKIE, path=HOME)
    return answer


def _within(path: str) -> str:
    """`path` where it is one of the console's own, else its first page."""
    own = path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))
    return path if own and path.isprintable() else HOME


# --- reviewing ------------------------------------------------------------------------------------


@router.post("/quarantine/marks")
async def mark(visit: VisitOf, fields: Form) -> Response:
    """Mark the images that are ticked, or with `every` all that the filter takes, after a question."""
    store, mark = visit.gateway.quarantine, _mark(fields)
    query = Query({name: first(fields, name) for name in fields})
    filter = read_filter({name: first(fields, name) for name in FIELDS})
    if query.text("every") and not query.text("sure"):
        total = await asyncio.to_thread(store.count, filter.asked)
        return page(
            visit, "mark_all.html", here="quarantine", filter=filter, mark=first(fields, "mark"), total=total
        )
    if query.text("every"):
        marked = await asyncio.to_thread(store.mark_all, filter.asked, mark, visit.operator)
    else:
        marked = await asyncio.to_thread(store.mark, _digests(fields), mark, visit.operator)
    if (only := query.text("only")) and only in fields.get("image", []):
        return redirect(f"{HOME}/quarantine/{only}", marked=marked)
    return redirect(f"{HOME}/quarantine?{filter.query(before=query.whole('before'))}", marked=marked)


@router.post("/incidents/{label}/{first_id}/{last_id}/marks")
async def mark_incident(
    label: Number, first_id: Number, last_id: Number, visit: VisitOf, fields: Form
) -> Response:
    """Mark the images of an incident that are ticked, or with `every` its newest thousand."""
    digests = _digests(fields)
    if first(fields, "every"):
        database = visit.gateway.database
        digests = list(await asyncio.to_thread(incident_images, database, label, first_id, last_id, MOST))
    marked = await asyncio.to_thread(visit.gateway.quarantine.mark, digests, _mark(fields), visit.operator)
    return redirect(f"{HOME}/incidents/{label}/{first_id}/{last_id}", marked=marked)


def _mark(fields: Fields) -> Mark | None:
    text = first(fields, "mark")
    return None if text == "none" else _known(text)


def _known(text: str) -> Mark:
    found = Query({"mark": text}).choice("mark", Mark)
    if found is None:
        raise QueryError("mark is trigger, false_alarm or none", "mark")
    return found


def _digests(fields: Fields) -> list[str]:
    found = fields.get("image", [])
    if not all(len(each) == 64 and set(each) <= set("0123456789abcdef") for each in found):
        raise QueryError("image is the SHA-256 of an image", "image")
    return found


# --- what is enforced -----------------------------------------------------------------------------


@router.get("/calibrations/{id}/activate")
async def activate_page(id: Id, visit: VisitOf) -> Response:
    """Asks, and says what would change."""
    gateway, store = visit.gateway, visit.gateway.store
    record = await asyncio.to_thread(store.get, id)
    active_id = await asyncio.to_thread(store.active_id)
    active = await asyncio.to_thread(store.get, active_id) if active_id else None
    misfit = gateway.calibrator.misfit
    found = compare(active, record, misfit(active), misfit(record)) if active else None
    differences = found["differences"] if found else []
    return page(
        visit, "activate.html", here="calibrations", record=record, active=active,
        differences=differences, misfit=misfit(record),
    )  # fmt: skip


@router.post("/calibrations/{id}/activate")
async def activate(id: Id, visit: VisitOf, fields: Form) -> Response:
    """Refused where another calibration was activated since the question was asked."""
    expected = first(fields, "instead_of") or None
    try:
        await visit.gateway.calibrator.activate(id, f"activated by {visit.operator}", if_active=expected)
    except CalibrationMismatch as error:
        raise Conflict(str(error)) from error
    return redirect(f"{HOME}/calibrations", done=id)


@router.get("/mode")
async def mode_page(visit: VisitOf) -> Response:
    gateway = visit.gateway
    other = Mode.MONITOR if gateway.firewall.mode is Mode.ENFORCE else Mode.ENFORCE
    nothing = gateway.firewall.guard is None
    return page(
        visit, "mode.html", here="overview", other=other.value, impossible=other is Mode.ENFORCE and nothing
    )


@router.post("/mode")
async def mode(visit: VisitOf, fields: Form) -> Response:
    asked = Query({"to": first(fields, "to")}).choice("to", Mode)
    seen = Query({"from": first(fields, "from")}).choice("from", Mode)
    if asked is None or seen is None:
        raise QueryError("to and from are modes", "to")
    if visit.gateway.firewall.mode is not seen:
        raise Conflict(f"the mode is no longer {seen}: somebody else has switched it; look again")
    try:
        await visit.gateway.switch(asked)
    except NotCalibrated as error:
        raise Conflict(str(error)) from error
    log.warning("%s switched the mode to %s in the console", visit.operator, asked)
    return redirect(HOME)
