"""Sessions of the console: a signed cookie that expires, and the token that every form carries.

Gateways on one database know each other's sessions: the secret that signs them is there, and which of them
were ended. The admin's key is part of what signs, so that a new key ends every session. A cookie holds no
key, only that one was shown.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Protocol

__all__ = ["COOKIE", "Kept", "Session", "Sessions"]

COOKIE = "triggerwall_console"


@dataclass(frozen=True)
class Session:
    """One browser. `operator` is who signed in, None before that; `expires` in Unix seconds."""

    id: str
    operator: str | None
    expires: float


class Kept(Protocol):
    """What is kept of sessions (`app.storage.sessions`). Every method blocks, and raises `StoreError`."""

    def secret(self) -> bytes: ...
    def end(self, id: str, expires: float) -> None: ...
    def ended(self, id: str) -> bool: ...


class Sessions:
    """Gives sessions out and knows them again; any thread may use it. Blocks, and raises `StoreError` where
    what is kept of sessions cannot be read."""

    def __init__(self, kept: Kept, key: str, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        """`key` is the admin's, empty where there is none; `lifetime` in seconds, from the sign-in on."""
        self._kept, self._key, self.lifetime, self._clock = kept, key, lifetime, clock

    @cached_property
    def _secret(self) -> bytes:
        return hmac.new(self._kept.secret(), self._key.encode(), hashlib.sha256).digest()

    def open(self, operator: str | None = None) -> Session:
        return Session(secrets.token_hex(16), operator, self._clock() + self.lifetime)

    def cookie(self, session: Session) -> str:
        """What the browser keeps of `session`."""
        content = base64.urlsafe_b64encode(json.dumps(asdict(session)).encode()).decode()
        return f"{content}.{self._sign('session', content)}"

    def read(self, cookie: str | None) -> Session | None:
        """The session of `cookie`; None where it is not ours, has expired or was ended."""
        content, _, signature = (cookie or "").partition(".")
        if not _same(signature, self._sign("session", content)):
            return None
        try:
            session = Session(**json.loads(base64.urlsafe_b64decode(content)))
        except (binascii.Error, ValueError, TypeError):
            return None
        alive = self._clock() < session.expires and not self._kept.ended(session.id)
        return session if alive else None

    def end(self, session: Session) -> None:
        """Nobody is let in with this session again."""
        self._kept.end(session.id, session.expires)

    def token(self, session: Session) -> str:
        """What a form of this session carries. A page of another site cannot know it."""
        return self._sign("form", session.id)

    def confirms(self, session: Session, token: str) -> bool:
        return _same(token, self.token(session))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(errors="replace"), b.encode())
