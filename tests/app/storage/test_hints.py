"""Word of activations: with the commit, and only a hint."""

import asyncio
from pathlib import Path

import pytest

from app.storage.calibrations import CalibrationStore
from app.storage.database import Database
from app.storage.errors import StoreError
from tests.app.storage.postgres import Postgres
from tests.app.storage.test_calibrations import record

WITHIN_S = 20


def test_sqlite_gives_none(tmp_path: Path) -> None:
    assert Database(tmp_path).hints is None


def test_an_activation_is_heard_after_its_commit(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create()
    store, other = CalibrationStore(Database(tmp_path, url)), Database(tmp_path, url)
    seen: list[str | None] = []

    async def listen() -> None:
        assert other.hints is not None
        async for _ in other.hints():
            seen.append(CalibrationStore(other).active_id())
            if len(seen) == 2:
                return

    async def scenario() -> None:
        listening = asyncio.create_task(listen())
        while not _listeners(other):
            await asyncio.sleep(0.02)
        store.save(record("kept"), activate=False)  # changes nothing that is enforced, so nobody is told
        store.save(record("first"), activate=True)
        store.activate("kept", "rolled back")
        await asyncio.wait_for(listening, WITHIN_S)

    asyncio.run(asyncio.wait_for(scenario(), 2 * WITHIN_S))
    assert seen[-1] == "kept"
    assert set(seen) <= {"first", "kept"}


def _listeners(database: Database) -> int:
    with database.read() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %%'"
        return int(connection.exec_driver_sql(query).scalar_one())


def test_no_server_is_said_in_the_store_s_own_words(postgres: Postgres, tmp_path: Path) -> None:
    database = Database(tmp_path, postgres.create())
    database.engine.url = database.engine.url.set(query={"host": str(tmp_path)})  # nobody is there
    hints = database.hints
    assert hints is not None

    async def listen() -> None:
        async for _ in hints():
            pass

    with pytest.raises(StoreError, match="no hints"):
        asyncio.run(listen())
