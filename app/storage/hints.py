"""Word from PostgreSQL that a calibration was just activated.

A hint and no more: it is lost with its connection, and a pooler may not pass it on. Whoever waits for one
also asks from time to time.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy import Connection, Engine

from app.storage.errors import StoreError

__all__ = ["Hints", "announce", "listener"]

CHANNEL = "triggerwall_activations"

Hints = Callable[[], AsyncIterator[None]]
"""One connection's worth of hints. Raises `StoreError` where there is none, or no longer."""


def announce(connection: Connection) -> None:
    """Tell those who listen once the transaction of `connection` is committed."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


def listener(engine: Engine, **options: Any) -> Hints | None:
    """The hints of a PostgreSQL server, connected to with the driver's `options`; None for a database that
    gives none."""
    if engine.dialect.name != "postgresql":
        return None
    where, how = engine.dialect.create_connect_args(engine.url)

    async def hints() -> AsyncIterator[None]:
        import psycopg

        try:
            connection = await psycopg.AsyncConnection.connect(*where, **{**how, **options}, autocommit=True)
            async with connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                async for _ in connection.notifies():
                    yield
        except psycopg.Error as error:
            raise StoreError(f"the database gives no hints: {error}") from error

    return hints
