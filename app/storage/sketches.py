"""What gateways that share a database tell each other of their traffic: each one's latest sketches.

Blocking: call it from a thread. Every method raises `StoreError` where the database fails.
"""

import time
from collections.abc import Mapping

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from app.storage.database import Database
from app.storage.schema import sketches

__all__ = ["KEEP_S", "SketchStore"]

KEEP_S = 24 * 3600.0  # a gateway that is gone counts so much longer: its traffic was traffic


class SketchStore:
    """One row for each replica and kind of sketch, replaced whenever it is written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, replica: str, kind: str, subject: str, images: int, content: bytes) -> None:
        """Keep `content`, of so many `images`, as what `replica` knows of `subject` by now; and forget
        what is too old."""
        now = time.time()
        row = {"subject": subject, "at": now, "images": images, "content": content}
        with self._database.write() as connection:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            written = dialect.insert(sketches).values(replica=replica, kind=kind, **row)
            connection.execute(written.on_conflict_do_update(index_elements=["replica", "kind"], set_=row))
            connection.execute(delete(sketches).where(sketches.c.at < now - KEEP_S))

    def get(self, kind: str, subject: str) -> Mapping[str, bytes]:
        """The latest sketch of every replica, of this kind and subject."""
        query = select(sketches.c.replica, sketches.c.content).where(
            sketches.c.kind == kind, sketches.c.subject == subject
        )
        with self._database.read() as connection:
            return {replica: bytes(content) for replica, content in connection.execute(query)}

    def images(self, kind: str, subject: str) -> Mapping[str, int]:
        """How many images each replica's latest sketch is of, without the sketches."""
        query = select(sketches.c.replica, sketches.c.images).where(
            sketches.c.kind == kind, sketches.c.subject == subject
        )
        with self._database.read() as connection:
            return {replica: int(count) for replica, count in connection.execute(query)}
