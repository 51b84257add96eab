"""The device's thread: one at a time, in order, and never lost."""

import asyncio
import ctypes
import sys
import threading
import time
from typing import Any

import pytest

from app.worker import Worker, WorkerDied


def kill(thread: threading.Thread) -> None:
    """Raise SystemExit in `thread` at its next step: as near as Python comes to killing one."""
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_exception(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)) == 1


def run(test: Any) -> None:
    async def main() -> None:
        worker = Worker()
        await asyncio.wait_for(test(worker), 20)
        worker.close()

    asyncio.run(main())


def test_what_tries_to_end_the_thread_fails_alone() -> None:
    async def test(worker: Worker) -> None:
        died, fine = await asyncio.gather(
            worker.run(sys.exit, 3), worker.run(lambda: 7), return_exceptions=True
        )
        assert isinstance(died, WorkerDied)
        assert isinstance(died.__cause__, SystemExit)
        assert fine == 7

    run(test)


def test_a_thread_killed_at_work_fails_that_call_alone() -> None:
    async def test(worker: Worker) -> None:
        begun = threading.Event()

        def busy() -> None:
            begun.set()
            for _ in range(2000):
                time.sleep(0.005)

        under_way = asyncio.create_task(worker.run(busy))
        waiting = asyncio.create_task(worker.run(lambda: 5))
        await asyncio.to_thread(begun.wait)
        kill(worker._thread)
        with pytest.raises(WorkerDied):
            await under_way
        assert await waiting == 5
        assert worker.busy_for() == 0

    run(test)


def test_a_thread_killed_while_it_waits_is_replaced_and_nothing_is_lost() -> None:
    async def test(worker: Worker) -> None:
        for number in range(20):
            assert await worker.run(lambda: number) == number  # noqa: B023  (awaited at once)
            first = worker._thread
            kill(first)
            answers = await asyncio.gather(*(worker.run(lambda n=n: n) for n in range(3)))
            assert answers == [0, 1, 2]
            assert worker._thread is not first

    run(test)


def test_a_caller_cancelled_before_its_turn_is_never_run() -> None:
    async def test(worker: Worker) -> None:
        free, ran = threading.Event(), []
        first = asyncio.create_task(worker.run(free.wait))
        second = asyncio.create_task(worker.run(ran.append, 1))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0)
        free.set()
        assert await first
        await worker.run(ran.append, 2)
        assert ran == [2]

    run(test)


def test_nothing_is_taken_after_closing() -> None:
    async def test(worker: Worker) -> None:
        await asyncio.to_thread(worker.close)
        with pytest.raises(RuntimeError, match="closed"):
            await worker.run(time.sleep, 0)

    run(test)
