"""Security headers, and which paths the public port knows. Plain ASGI, no framework.

There are no CORS headers: no page of another site gets to read an answer, or to send what needs a preflight.
"""

from collections.abc import Iterable

from app.middleware import App, Message, Receive, Scope, Send

__all__ = ["NO_FRAMES", "PUBLIC", "AdminPort", "SecurityHeaders"]

NO_FRAMES = "frame-ancestors 'none'"
PUBLIC = frozenset({"/classify", "/info", "/livez", "/readyz"})
"""Paths that answer on the public port where the admin's are on another; so does all of `/v2`."""
HTML = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", f"default-src 'none'; {NO_FRAMES}".encode()),
)


class SecurityHeaders:
    """`nosniff` on every answer; on HTML pages what else keeps them from doing harm, unless they say it
    themselves."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
                given = dict(headers)
                if given.get(b"content-type", b"").startswith(b"text/html"):
                    headers += [(name, value) for name, value in HTML if name not in given]
                message["headers"] = headers
            await send(message)

        await self.app(scope, receive, send_on)


class AdminPort:
    """Hides every path but the public ones from connections to another port than the admin's."""

    def __init__(self, app: App, port: int, hidden: App, public: Iterable[str] = PUBLIC) -> None:
        """`hidden` answers for paths that are not to be seen."""
        self.app, self.port, self.hidden, self.public = app, port, hidden, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may_see(scope):
            await self.hidden(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _may_see(self, scope: Scope) -> bool:
        path = scope["path"]
        server = scope.get("server")
        at_admin_port = server is not None and server[1] == self.port
        return at_admin_port or path in self.public or path == "/v2" or path.startswith("/v2/")
