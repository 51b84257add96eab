"""What gateways share of the console's sessions: the secret that signs them, and those that were ended.

Blocking: call it from a thread. Every method raises `StoreError` where the database fails.
"""

import secrets
import time

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Database
from app.storage.schema import ended_sessions
from app.storage.schema import secrets as stored

__all__ = ["SessionStore"]

NAME = "console"
BYTES = 32


class SessionStore:
    """The secret, and the sessions that somebody signed out of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def secret(self) -> bytes:
        """Drawn by the first gateway that asks; the same for all from then on."""
        with self._database.write() as connection:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            drawn = dialect.insert(stored).values(name=NAME, value=secrets.token_bytes(BYTES))
            connection.execute(drawn.on_conflict_do_nothing())
            query = select(stored.c.value).where(stored.c.name == NAME)
            return bytes(connection.execute(query).scalar_one())

    def end(self, id: str, expires: float) -> None:
        """Let nobody in with session `id` again; `expires`, Unix seconds, is when nobody could any more."""
        with self._database.write() as connection:
            connection.execute(delete(ended_sessions).where(ended_sessions.c.expires < time.time()))
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            ended = dialect.insert(ended_sessions).values(id=id, expires=expires)
            connection.execute(ended.on_conflict_do_nothing())

    def ended(self, id: str) -> bool:
        query = select(ended_sessions.c.id).where(ended_sessions.c.id == id)
        with self._database.read() as connection:
            return connection.execute(query).first() is not None
