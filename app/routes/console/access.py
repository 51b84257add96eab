"""Who may see the console: a session after the sign-in, the admin's key, or this machine where no key is set.

The cookie is for /console alone: no other path takes it for a key.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from app.console.rendering import POLICY, render
from app.console.session import COOKIE, Session, Sessions
from app.errors import Forbidden, InvalidRequest, SignedOut, UnsupportedMediaType
from app.gateway import Gateway
from app.routes.classify import media_type
from app.routes.dependencies import CallerOf, GatewayOf, Key, require_admin
from app.storage.sessions import SessionStore

__all__ = ["Console", "Fields", "Form", "Visit", "Visitor", "VisitorOf", "page", "redirect"]

HOME = "/console"
NOBODY = "console"  # who marked an image, where nobody gave a name
FORM = "application/x-www-form-urlencoded"
MOST_BYTES, MOST_FIELDS = 512 * 1024, 4000
PICTURES_AT_ONCE = 2  # decoded at the same time: traffic needs the processor too

Fields = Mapping[str, list[str]]


class Console:
    """What the console keeps while the gateway runs."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        key = settings.admin_key.get_secret_value() if settings.admin_key else ""
        kept = SessionStore(gateway.database)
        self.sessions = Sessions(kept, key, settings.console_session_minutes * 60)

    @cached_property
    def pictures(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(PICTURES_AT_ONCE)


@dataclass(frozen=True)
class Visitor:
    """A browser, whether or not it may see anything. `fresh` sessions are yet to be sent as a cookie."""

    request: Request
    gateway: Gateway
    console: Console
    session: Session
    fresh: bool

    @property
    def token(self) -> str:
        return self.console.sessions.token(self.session)


@dataclass(frozen=True)
class Visit(Visitor):
    """One that may see everything. `by_key`: it showed the key itself, which no other site's page can."""

    operator: str
    by_key: bool


async def visitor_of(request: Request, gateway: GatewayOf) -> Visitor:
    console: Console = request.app.state.console
    known = console.sessions.read(request.cookies.get(COOKIE))
    return Visitor(request, gateway, console, known or console.sessions.open(), fresh=known is None)


VisitorOf = Annotated[Visitor, Depends(visitor_of)]


async def visit_of(visitor: VisitorOf, caller: CallerOf, key: Key) -> Visit:
    """Raises `SignedOut`, or what `require_admin` raises where a sign-in would not help."""
    gateway, session = visitor.gateway, visitor.session
    if session.operator is not None:
        return Visit(**visitor.__dict__, operator=session.operator, by_key=False)
    if caller.admin:
        shown = gateway.keys.has_admin
        return Visit(**visitor.__dict__, operator="admin key" if shown else NOBODY, by_key=shown)
    if key is not None or not gateway.keys.has_admin:
        require_admin(gateway, caller)
    url = visitor.request.url
    back = url.path + (f"?{url.query}" if url.query else "") if visitor.request.method == "GET" else HOME
    raise SignedOut("sign in first", back)


VisitOf = Annotated[Visit, Depends(visit_of)]


async def read_fields(request: Request) -> Fields:
    """The fields of a posted form. Raises `UnsupportedMediaType`, `InvalidRequest`."""
    if media_type(request) != FORM:
        raise UnsupportedMediaType(f"send the form as {FORM}")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise InvalidRequest(f"the form is larger than {MOST_BYTES} bytes")
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise InvalidRequest("the form cannot be read, or has too many fields") from error


def require_token(visitor: Visitor, fields: Fields) -> None:
    """Raises `Forbidden` for a form that is not from a page of this session."""
    if not visitor.console.sessions.confirms(visitor.session, first(fields, "csrf")):
        raise Forbidden(
            "the form is not from a page of this session, or that has ended: nothing was changed; go back, "
            "reload the page and try again"
        )


async def form_of(request: Request, visit: VisitOf) -> Fields:
    """The fields of a form that is really from a page of this console."""
    fields = await read_fields(request)
    if not visit.by_key:
        require_token(visit, fields)
    return fields


Form = Annotated[Fields, Depends(form_of)]


def first(fields: Fields, name: str) -> str:
    """The first field called `name`; empty where there is none."""
    return fields.get(name, [""])[0]


def page(visitor: Visitor, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """`template` as a page for this browser. Blocking, though not for long."""
    gateway = visitor.gateway
    text = render(
        template,
        csrf=visitor.token,
        operator=visitor.operator if isinstance(visitor, Visit) else None,
        can_sign_out=visitor.session.operator is not None,
        mode=gateway.firewall.mode.value,
        model=gateway.info.name,
        path=visitor.request.url.path,
        **context,
    )
    return _with_cookie(visitor, HTMLResponse(text, status, {"Content-Security-Policy": POLICY}))


def _with_cookie(visitor: Visitor, response: HTMLResponse) -> HTMLResponse:
    response.headers["Cache-Control"] = "no-store"
    if visitor.fresh and not getattr(visitor, "by_key", False):
        set_cookie(visitor, response, visitor.session)
    return response


def set_cookie(visitor: Visitor, response: HTMLResponse | RedirectResponse, session: Session) -> None:
    response.set_cookie(
        COOKIE,
        visitor.console.sessions.cookie(session),
        max_age=int(visitor.console.sessions.lifetime),
        path=HOME,
        secure=visitor.request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def redirect(path: str, **query: object) -> RedirectResponse:
    """After a form: the page that shows what came of it."""
    more = urlencode({name: value for name, value in query.items() if value is not None})
    joint = "&" if "?" in path else "?"
    return RedirectResponse(path + (joint + more if more else ""), 303)
