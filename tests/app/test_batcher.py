"""The micro-batcher: who shares a batch, who gets which answer, and what disturbs whom."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.batcher import Batcher, BatchFigures, Closed, DeadlineExceeded, Overloaded
from app.worker import Worker


class Device:
    """A work function that remembers its batches, and fails on items below zero."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.free = asyncio.Event()
        self.free.set()

    def work(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        if any(item < 0 for item in items):
            raise ValueError(f"bad items {[item for item in items if item < 0]}")
        return [item * 10 for item in items]

    async def run(
        self, work: Callable[[Sequence[int]], Sequence[int]], items: Sequence[int]
    ) -> Sequence[int]:
        await self.free.wait()
        return work(items)


def make(device: Device, **overrides: Any) -> Batcher[int, int]:
    limits: dict[str, Any] = {"max_weight": 8, "max_delay": 0.01, "max_waiting": 100, **overrides}
    return Batcher(device.work, device.run, **limits)


def run(test: Callable[[Device], Awaitable[None]]) -> Device:
    async def main() -> Device:
        device = Device()
        await asyncio.wait_for(test(device), 20)
        return device

    return asyncio.run(main())


def test_items_that_arrive_together_share_a_batch() -> None:
    async def test(device: Device) -> None:
        batcher = make(device)
        batcher.start()
        assert await asyncio.gather(*(batcher.submit(n) for n in range(8))) == [n * 10 for n in range(8)]
        await batcher.close()

    assert run(test).batches == [list(range(8))]


def test_a_full_batch_does_not_wait() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=1000)
        batcher.start()
        await asyncio.gather(*(batcher.submit(n) for n in range(16)))
        await batcher.close()

    assert [len(batch) for batch in run(test).batches] == [8, 8]


def test_a_lone_item_waits_no_longer_than_the_delay() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0.02)
        batcher.start()
        started = asyncio.get_running_loop().time()
        assert await batcher.submit(4) == 40
        assert asyncio.get_running_loop().time() - started >= 0.02
        await batcher.close()

    run(test)


def test_weights_are_never_exceeded_and_a_giant_goes_alone() -> None:
    async def test(device: Device) -> None:
        batcher = make(device)
        batcher.start()
        weights = {1: 5, 2: 4, 3: 4, 4: 50, 5: 1}
        await asyncio.gather(*(batcher.submit(item, weight) for item, weight in weights.items()))
        await batcher.close()

    assert run(test).batches == [[5, 2], [3], [1], [4]]  # lightest first: see fair_queue


def test_while_the_device_is_busy_a_batch_fills_up() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0)
        batcher.start()
        device.free.clear()
        callers = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.01)
        callers += [asyncio.create_task(batcher.submit(n)) for n in range(1, 6)]
        await asyncio.sleep(0.01)
        device.free.set()
        assert await asyncio.gather(*callers) == [0, 10, 20, 30, 40, 50]
        await batcher.close()

    assert run(test).batches == [[0], [1, 2, 3, 4, 5]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 50), st.integers(1, 10), st.booleans()), min_size=1, max_size=25),
    st.sampled_from([0.0, 0.001]),
    st.sampled_from([1, 3]),
)
def test_everybody_gets_the_answer_to_their_own_item(
    callers: list[tuple[int, int, bool]], delay: float, lanes: int
) -> None:
    """Whatever the weights, whoever is cancelled, and whichever items make the device fail."""

    async def test(device: Device) -> None:
        batcher = make(device, max_delay=delay, max_waiting=10_000, lanes=lanes)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(item, weight)) for item, weight, _ in callers]
        await asyncio.sleep(0)
        for task, (_, _, cancelled) in zip(tasks, callers, strict=True):
            if cancelled:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await batcher.close()
        assert batcher.waiting == 0
        for answer, (item, _, cancelled) in zip(answers, callers, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                assert cancelled
            elif item < 0:
                assert isinstance(answer, ValueError)
                assert str(answer) == f"bad items [{item}]"  # its own, not a neighbour's
            else:
                assert answer == item * 10

    run(test)


@pytest.mark.parametrize("position", range(5))
def test_a_caller_cancelled_in_a_running_batch_disturbs_nobody(position: int) -> None:
    async def test(device: Device) -> None:
        batcher = make(device)
        batcher.start()
        device.free.clear()
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(5)]
        await asyncio.sleep(0.03)  # the batch is with the device now
        assert batcher.waiting == 0
        tasks[position].cancel()
        device.free.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, answer in enumerate(answers) if answer == n * 10] == [
            n for n in range(5) if n != position
        ]
        assert await batcher.submit(9) == 90
        await batcher.close()

    run(test)


@pytest.mark.parametrize("position", range(3))
def test_a_caller_cancelled_in_the_queue_frees_its_place(position: int) -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_weight=3, max_delay=1000, max_waiting=2)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await batcher.submit(9)
        tasks[position % 2].cancel()
        await asyncio.sleep(0.01)
        assert batcher.waiting == 1
        tasks.append(asyncio.create_task(batcher.submit(5)))
        await asyncio.sleep(0)
        await batcher.close()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[2] == 50
        assert answers[1 - position % 2] == (1 - position % 2) * 10

    assert len(run(test).batches) == 1


def test_overload_is_told_at_once() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_waiting=8)
        with pytest.raises(Overloaded) as caught:
            await batcher.submit(1, weight=9)
        assert caught.value.retry_after > 0
        with pytest.raises(Overloaded):
            batcher.admit(9)
        with batcher.admit(8), pytest.raises(Overloaded):
            batcher.admit(1)
        assert batcher.waiting == 0

    run(test)


def test_room_is_held_while_an_item_is_prepared() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_waiting=8)
        batcher.start()
        with batcher.admit(6) as ticket:
            with pytest.raises(Overloaded):
                batcher.admit(3)
            assert await ticket.submit(1, 2) == 10  # lighter than was foreseen
        assert batcher.waiting == 0
        await batcher.close()

    run(test)


def test_closing_waits_for_what_was_admitted() -> None:
    async def test(device: Device) -> None:
        batcher = make(device)
        batcher.start()
        with batcher.admit(1) as ticket:
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0.02)
            assert not closing.done()
            assert await ticket.submit(3) == 30
        await closing

    run(test)


def test_a_deadline_is_kept_in_the_queue_and_no_work_is_done_for_it() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0)
        batcher.start()
        device.free.clear()
        first = asyncio.create_task(batcher.submit(1))
        await asyncio.sleep(0.01)
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(2, deadline=time.monotonic() + 0.02)
        assert batcher.waiting == 0
        device.free.set()
        assert await first == 10
        await batcher.close()

    assert run(test).batches == [[1]]


def test_a_deadline_is_kept_at_the_device_too() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0)
        batcher.start()
        device.free.clear()
        mate = asyncio.create_task(batcher.submit(1))
        late = asyncio.create_task(batcher.submit(2, deadline=time.monotonic() + 0.02))
        with pytest.raises(DeadlineExceeded):
            await late
        device.free.set()
        assert await mate == 10
        await batcher.close()

    run(test)


def test_a_work_function_may_time_out_by_itself() -> None:
    async def test(device: Device) -> None:
        def work(_: Sequence[int]) -> list[int]:
            raise TimeoutError("the device")

        batcher: Batcher[int, int] = Batcher(work, device.run, max_weight=8, max_delay=0, max_waiting=8)
        batcher.start()
        with pytest.raises(TimeoutError, match="the device"):
            await batcher.submit(1, deadline=time.monotonic() + 10)
        await batcher.close()

    run(test)


def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0)
        batcher.start()
        assert await batcher.submit(1) == 10
        batcher._seconds_per_weight = 0.5
        with batcher.admit(6):
            assert batcher.expected_wait() == 3.0
            with pytest.raises(Overloaded) as caught:
                await batcher.submit(2, deadline=time.monotonic() + 2)
            assert caught.value.retry_after == 3.0
        await batcher.close()

    run(test)


def test_a_light_item_overtakes_a_heavy_one_and_flows_share() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_weight=1, max_delay=0)
        batcher.start()
        device.free.clear()
        tasks = [asyncio.create_task(batcher.submit(0))]
        await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(batcher.submit(n, flow="busy")) for n in (1, 2, 3)]
        tasks += [asyncio.create_task(batcher.submit(4, flow="other"))]
        tasks += [asyncio.create_task(batcher.submit(5, weight=9)), asyncio.create_task(batcher.submit(6))]
        await asyncio.sleep(0.01)
        device.free.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    assert run(test).batches == [[0], [1], [4], [6], [2], [3], [5]]


def test_who_comes_seldom_does_not_wait_for_mates() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=0.01)
        batcher.start()
        assert batcher._delay() == 0.01
        for _ in range(12):
            await batcher.submit(1)
            await asyncio.sleep(0.02)
        assert batcher._delay() == 0
        await asyncio.gather(*(batcher.submit(n) for n in range(50)))
        assert batcher._delay() == 0.01
        await batcher.close()

    run(test)


def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    async def test(device: Device) -> None:
        batcher = make(device, max_delay=1000)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(n)) for n in range(20)]
        await asyncio.sleep(0)
        await batcher.close()
        assert [task.result() for task in tasks] == [n * 10 for n in range(20)]
        with pytest.raises(Closed):
            await batcher.submit(1)

    run(test)


def test_what_is_nobodys_fault_reaches_all_at_once_and_is_not_tried_item_by_item() -> None:
    calls: list[int] = []

    def down(items: Sequence[int]) -> Sequence[int]:
        calls.append(len(items))
        raise ConnectionError

    async def main() -> None:
        async def here(work: Any, items: Any) -> Any:
            return work(items)

        batcher: Batcher[int, int] = Batcher(
            down, here, max_weight=8, max_delay=0.05, max_waiting=100, nobodys_fault=(ConnectionError,)
        )
        batcher.start()
        ends = await asyncio.gather(*(batcher.submit(n) for n in range(8)), return_exceptions=True)
        assert [type(end) for end in ends] == [ConnectionError] * 8
        await batcher.close()

    asyncio.run(main())
    assert calls == [8]


def test_a_work_function_that_loses_an_answer_fails_loudly() -> None:
    async def test(device: Device) -> None:
        batcher: Batcher[int, int] = Batcher(
            lambda items: list(items)[:-1], device.run, max_weight=8, max_delay=0, max_waiting=8
        )
        batcher.start()
        with pytest.raises(RuntimeError, match="0 results for 1 items"):
            await batcher.submit(1)
        await batcher.close()

    run(test)


def test_figures_of_each_batch() -> None:
    seen: list[BatchFigures] = []

    async def test(device: Device) -> None:
        batcher = make(device, observe=seen.append)
        batcher.start()
        await asyncio.gather(batcher.submit(1, 2), batcher.submit(2, 3))
        await batcher.close()

    run(test)
    assert [(figures.weight, len(figures.waited)) for figures in seen] == [(5, 2)]
    assert all(0.005 < waited < 5 for waited in seen[0].waited)


def test_the_worker_is_one_thread_off_the_event_loop() -> None:
    async def main() -> tuple[list[int], list[int]]:
        worker, order = Worker(), []

        def job(number: int) -> int:
            order.append(number)
            return threading.get_ident()

        threads = await asyncio.gather(*(worker.run(job, n) for n in range(5)))
        worker.close()
        return list(threads), order

    threads, order = asyncio.run(main())
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads
    assert order == [0, 1, 2, 3, 4]


def test_an_item_is_let_go_when_its_caller_goes() -> None:
    """However many come and go while the device is busy: with their room goes their memory."""

    class Item:
        pass

    async def main() -> None:
        free = asyncio.Event()

        async def later(work: Callable[[Sequence[Item]], Sequence[Item]], items: Sequence[Item]) -> Any:
            await free.wait()
            return work(items)

        batcher: Batcher[Item, Item] = Batcher(list, later, max_weight=1, max_delay=0, max_waiting=9)
        batcher.start()
        first = asyncio.create_task(batcher.submit(Item()))
        await asyncio.sleep(0.01)
        gone = []
        for _ in range(20):
            item = Item()
            gone.append(weakref.ref(item))
            caller = asyncio.create_task(batcher.submit(item))
            del item
            await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            del caller
        gc.collect()
        assert sum(each() is not None for each in gone) <= 1  # the last one's traceback may still hold it
        free.set()
        assert isinstance(await first, Item)
        await batcher.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_batches_are_no_larger_than_helps_where_it_adapts() -> None:
    """Ten milliseconds for each item, however many: a batch of one is nearly as fast as any."""

    async def test(device: Device) -> None:
        def slow(items: Sequence[int]) -> list[int]:
            time.sleep(0.01 * len(items))
            return device.work(items)

        batcher = Batcher(slow, device.run, max_weight=64, max_delay=0, max_waiting=1000, adapts=True)
        batcher.start()
        for _ in range(2):
            answers = await asyncio.gather(*(batcher.submit(n) for n in range(64)))
            assert answers == [n * 10 for n in range(64)]
        assert batcher.enough <= 8
        await batcher.close()

    device = run(test)
    assert sorted(item for batch in device.batches for item in batch) == sorted([*range(64)] * 2)
    assert max(len(batch) for batch in device.batches[-5:]) <= 8


def test_as_many_batches_as_lanes_are_under_way_and_no_more() -> None:
    """What comes while all are busy waits, and shares a batch; closing waits for every lane."""

    async def test(device: Device) -> None:
        under_way: list[list[int]] = []
        free = [asyncio.Event() for _ in range(3)]

        async def later(work: Callable[[Sequence[int]], Sequence[int]], items: Sequence[int]) -> Any:
            under_way.append(list(items))
            await free[len(under_way) - 1].wait()
            return work(items)

        batcher = Batcher(device.work, later, max_weight=2, max_delay=0, max_waiting=100, lanes=2)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(6)]
        await asyncio.sleep(0.02)
        assert under_way == [[0, 1], [2, 3]]
        assert batcher.waiting == 2
        free[1].set()  # the second lane ends first
        assert await asyncio.gather(*tasks[2:4]) == [20, 30]
        await asyncio.sleep(0.02)
        assert under_way == [[0, 1], [2, 3], [4, 5]]
        closing = asyncio.create_task(batcher.close())
        free[0].set()
        assert await asyncio.gather(*tasks[:2]) == [0, 10]
        await asyncio.sleep(0.02)
        assert not closing.done()
        free[2].set()
        assert await asyncio.gather(*tasks[4:]) == [40, 50]
        await closing

    run(test)
