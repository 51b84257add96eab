"""Every test of what is kept runs on both databases: SQLite in a folder, and a real PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.storage.database import Database
from tests.app.storage.postgres import Postgres, missing

Open = Callable[[], Database]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def open_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same database at every call."""
    url = request.getfixturevalue("postgres").create() if request.param == "postgresql" else None
    opened: list[Database] = []

    def open() -> Database:
        opened.append(Database(tmp_path / "new" / "data", url))
        return opened[-1]

    yield open
    for each in opened:
        each.close()


@pytest.fixture
def database(open_database: Open) -> Database:
    return open_database()
