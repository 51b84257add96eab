"""What routes share: the gateway, the admin's key, and the problems they document."""

import hmac
import ipaddress
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from app.errors import CONTENT_TYPE, Forbidden, Unauthorized
from app.gateway import Gateway
from app.schemas import ProblemBody

__all__ = ["Admin", "GatewayOf", "Key", "problems", "require_admin"]

key_header = APIKeyHeader(
    name="X-API-Key", auto_error=False, description="The admin key of the gateway's settings."
)
Key = Annotated[str | None, Security(key_header)]


def gateway_of(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayOf = Annotated[Gateway, Depends(gateway_of)]


def require_admin(request: Request, gateway: GatewayOf, key: Key) -> None:
    """Let the admin pass. Raises `Unauthorized` or `Forbidden`."""
    expected = gateway.settings.admin_key
    if expected is not None:
        if not hmac.compare_digest((key or "").encode(), expected.get_secret_value().encode()):
            raise Unauthorized("send the gateway's admin key as X-API-Key")
    elif not gateway.settings.on_loopback:
        raise Forbidden(
            "no admin key is configured, so admin paths answer on a loopback bind only: set "
            "TRIGGERWALL_ADMIN_KEY and send it as X-API-Key"
        )
    elif not _from_this_machine(request):
        raise Forbidden(
            "without an admin key, admin paths answer neither other hosts' names nor other sites' pages"
        )


Admin = Depends(require_admin)


def _from_this_machine(request: Request) -> bool:
    """A web page open in a browser on this machine can send forms here too, but it cannot hide where it
    comes from (Origin), nor, by rebinding its name, what it calls this host (Host)."""
    origin = request.headers.get("origin")
    return _is_loopback(request.url.hostname) and (origin is None or _is_loopback(urlsplit(origin).hostname))


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
