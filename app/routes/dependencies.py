"""What routes share: the gateway, who asks, and the problems they document.

Every dependency is `async`, though none awaits anything: FastAPI sends others to a thread and back, each, and
three round trips for a request cost more than all they do.
"""

import ipaddress
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.callers.identity import Caller, network_of
from app.errors import CONTENT_TYPE, Forbidden, Unauthorized
from app.gateway import Gateway
from app.schemas import ProblemBody

__all__ = ["KEY_IS_OPTIONAL", "Admin", "CallerOf", "GatewayOf", "Key", "Sender", "problems", "require_admin"]

key_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The admin's key, or a caller's.")
Key = Annotated[str | None, Security(key_header)]
KEY_IS_OPTIONAL: dict[str, Any] = {"security": [{}]}
"""For `openapi_extra` of paths that answer without a key too, unless the settings ask for one."""


async def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayOf = Annotated[Gateway, Depends(gateway_of)]


async def caller_of(request: Request, gateway: GatewayOf, key: Key) -> Caller:
    """Who asks. Raises nothing: whoever shows no known key is known by their address."""
    known = gateway.keys.owner(key)
    if known is not None:
        return known
    name = network_of(request.client.host if request.client else None)
    trusted = not gateway.keys.has_admin and gateway.settings.admin_on_loopback
    return Caller(name, admin=trusted and _from_this_machine(request) and _at_admin_port(request, gateway))


CallerOf = Annotated[Caller, Depends(caller_of)]


async def require_caller(gateway: GatewayOf, key: Key, caller: CallerOf) -> Caller:
    """Let those pass who may send images. Raises `Unauthorized`."""
    if gateway.keys.has_callers and gateway.keys.owner(key) is None:
        raise Unauthorized("send a key of this gateway as X-API-Key")
    return caller


Sender = Annotated[Caller, Depends(require_caller)]


def require_admin(gateway: Gateway, caller: Caller) -> None:
    """Let the admin pass. Raises `Unauthorized` or `Forbidden`."""
    if caller.admin:
        return
    if gateway.keys.has_admin:
        raise Unauthorized("send the gateway's admin key as X-API-Key")
    if not gateway.settings.admin_on_loopback:
        raise Forbidden(
            "no admin key is configured, so admin paths answer on a loopback bind only: set "
            "TRIGGERWALL_ADMIN_KEY and send it as X-API-Key"
        )
    raise Forbidden(
        "without an admin key, admin paths answer neither other hosts' names nor other sites' pages"
    )


async def _admin(gateway: GatewayOf, caller: CallerOf) -> None:
    require_admin(gateway, caller)


Admin = Depends(_admin)


def _at_admin_port(request: Request, gateway: Gateway) -> bool:
    port = gateway.settings.admin_port
    return port is None or (request.scope.get("server") or ("", None))[1] == port


def _from_this_machine(request: Request) -> bool:
    """A web page open in a browser on this machine can send forms here too, but it cannot hide where it
    comes from (Origin), nor, by rebinding its name, what it calls this host (Host)."""
    origin = request.headers.get("origin")
    return _is_loopback(request.url.hostname) and (origin is None or _is_loopback(urlsplit(origin).hostname))


@lru_cache(maxsize=64)  # not more: the sender writes these names
def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the problem statuses of a path."""
    schema = {"$ref": "#/components/schemas/ProblemBody"}
    return {
        status: {"model": ProblemBody, "content": {CONTENT_TYPE: {"schema": schema}}} for status in statuses
    }
