"""The database of a gateway: SQLite in the data directory, or PostgreSQL by its URL.

SQLite runs in WAL mode with every commit synced to disk, so that a killed process or machine leaves the
last committed state. Blocking: call it from a thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from app.storage.errors import StoreError
from app.storage.hints import Hints, listener
from app.storage.migrations import migrate

__all__ = ["FILE_NAME", "Database"]

FILE_NAME = "triggerwall.sqlite3"
BUSY_S = 30  # how long a writer waits for another

SERVER = {
    "application_name": "triggerwall",
    "connect_timeout": 10,  # seconds
    # A server that vanished without a word is noticed within half a minute, not when TCP gives up.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
"""How PostgreSQL is connected to: options of libpq."""


class Database:
    """Transactions on one database, whose schema is this release's; any thread may use it."""

    def __init__(self, directory: Path, url: str | None = None) -> None:
        """Open `url`, or the SQLite file in `directory`, which is created where it is missing; then bring
        the schema up to date. Raises `StoreError`."""
        if url is None:
            self.engine, where = _sqlite(directory), f"the data directory {directory}"
        else:
            self.engine, where = _server(url)
        self._writing = self.engine.execution_options(triggerwall_writes=True)
        try:
            with self._writing.begin() as connection:
                migrate(connection)
        except SQLAlchemyError as error:
            raise StoreError(f"{where} cannot be used: {error}") from error

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.engine.dialect.name

    @property
    def hints(self) -> Hints | None:
        """Word of activations; None where the database gives none."""
        return listener(self.engine, **SERVER)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: it sees one state throughout. Raises `StoreError`."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the store failed: {error}") from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is kept as a whole or not at all. Raises `StoreError`."""
        try:
            with self._writing.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreError(f"the store failed: {error}") from error

    def close(self) -> None:
        self.engine.dispose()


def _sqlite(directory: Path) -> Engine:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StoreError(f"the data directory {directory} cannot be used: {error}") from error
    engine = create_engine(f"sqlite:///{directory / FILE_NAME}", connect_args={"timeout": BUSY_S})
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin in `_begin`, for statements of every kind
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    """Who will write says so at once, and waits its turn: a reader that becomes a writer cannot wait."""
    writes = connection.get_execution_options().get("triggerwall_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _server(text: str) -> tuple[Engine, str]:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StoreError("database_url is no URL like postgresql://user:password@host/database") from error
    where = f"the database {url.render_as_string(hide_password=True)}"
    if url.get_backend_name() != "postgresql":
        raise StoreError(
            f"{where} is none that Triggerwall knows: leave it out for SQLite, or use postgresql"
        )
    try:
        url = url.set(drivername="postgresql+psycopg")
        return create_engine(url, pool_pre_ping=True, connect_args=SERVER), where
    except ModuleNotFoundError as error:
        raise StoreError(f"{where} needs psycopg: pip install 'triggerwall[postgresql]'") from error
