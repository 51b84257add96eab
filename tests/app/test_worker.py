"""The device's threads: in order, alone or beside each other, and never lost."""

import asyncio
import ctypes
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.worker import Worker, WorkerDied


def kill(thread: threading.Thread) -> None:
    """Raise SystemExit in `thread` at its next step: as near as Python comes to killing one."""
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_exception(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)) == 1


def thread_of(worker: Worker, seat: int = 0) -> threading.Thread:
    """The one that calls run alone on, or that of a lane, from 1."""
    thread = worker._seats[seat].thread
    assert thread is not None
    return thread


def run(test: Any, lanes: int = 1, **options: Any) -> None:
    async def main() -> None:
        worker = Worker(lanes=lanes, **options)
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
        kill(thread_of(worker))
        with pytest.raises(WorkerDied):
            await under_way
        assert await waiting == 5
        assert worker.busy_for() == 0

    run(test)


def test_a_thread_killed_while_it_waits_is_replaced_and_nothing_is_lost() -> None:
    async def test(worker: Worker) -> None:
        for number in range(20):
            assert await worker.run(lambda: number) == number  # noqa: B023  (awaited at once)
            first = thread_of(worker)
            kill(first)
            answers = await asyncio.gather(*(worker.run(lambda n=n: n) for n in range(3)))
            assert answers == [0, 1, 2]
            assert thread_of(worker) is not first

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


def test_lanes_run_beside_each_other_each_on_a_prepared_thread() -> None:
    prepared: list[str] = []

    async def test(worker: Worker) -> None:
        together = threading.Barrier(3)  # passes only where three are under way at once

        def job(number: int) -> tuple[int, str]:
            together.wait(10)
            return number, threading.current_thread().name

        found = await asyncio.gather(*(worker.run_beside(job, number) for number in range(3)))
        assert [number for number, _ in found] == [0, 1, 2]
        assert {name for _, name in found} == {"device-1", "device-2", "device-3"}

    run(test, lanes=3, prepare=lambda: prepared.append(threading.current_thread().name))
    assert sorted(prepared) == ["device-1", "device-2", "device-3"]


def test_one_lane_is_the_thread_itself() -> None:
    async def test(worker: Worker) -> None:
        alone, beside = await asyncio.gather(
            worker.run(threading.get_ident), worker.run_beside(threading.get_ident)
        )
        assert alone == beside

    run(test)


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_who_runs_alone_meets_nobody_and_nobody_overtakes_them(alone: list[bool], lanes: int) -> None:
    async def test(worker: Worker) -> None:
        lock, under_way, begun = threading.Lock(), set[int](), list[int]()

        def job(number: int) -> int:
            with lock:
                begun.append(number)
                under_way.add(number)
                met = set(under_way)
            time.sleep(0.001)
            with lock:
                met |= under_way
                under_way.remove(number)
            assert met == {number} if alone[number] else not any(alone[other] for other in met)
            return number

        calls = [(worker.run if each else worker.run_beside)(job, n) for n, each in enumerate(alone)]
        assert await asyncio.gather(*calls) == list(range(len(alone)))
        for number, each in enumerate(alone):  # all before it began before it, and none after it
            if each:
                assert sorted(begun[:number]) == list(range(number))

    run(test, lanes=lanes)


def test_a_killed_lane_fails_its_own_call_and_is_replaced() -> None:
    async def test(worker: Worker) -> None:
        begun, free = threading.Barrier(3), threading.Event()

        def busy() -> str:
            begun.wait(10)
            for _ in range(2000):
                if free.wait(0.005):
                    break
            return threading.current_thread().name

        calls = [asyncio.create_task(worker.run_beside(busy)) for _ in range(2)]
        await asyncio.to_thread(begun.wait)
        last = asyncio.create_task(worker.run(lambda: 5))
        assert worker.busy_for() > 0
        kill(thread_of(worker, 1))
        done, others = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(WorkerDied):
            done.pop().result()
        assert not last.done()  # the other lane is still at it
        free.set()
        assert await others.pop() == "device-2"
        assert await last == 5
        assert await asyncio.gather(*(worker.run_beside(lambda n=n: n) for n in range(4))) == [0, 1, 2, 3]
        assert worker.busy_for() == 0

    run(test, lanes=2)


def test_the_oldest_call_says_how_long_it_is_busy() -> None:
    async def test(worker: Worker) -> None:
        free = threading.Event()
        stuck = asyncio.create_task(worker.run_beside(free.wait))
        await asyncio.sleep(0.05)
        await worker.run_beside(time.sleep, 0)
        assert worker.busy_for() >= 0.04
        worker.alive()
        assert worker.busy_for() < 0.04
        free.set()
        assert await stuck

    run(test, lanes=2)
