"""The background writer: batches, bounds, another try, and the end."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from app.recording import writer as module
from app.recording.writer import BackgroundWriter
from app.storage.errors import StoreError


class Sink:
    """Remembers what was written and lost; `fail` raises before a batch is taken."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.lost: list[int] = []
        self.fail: Callable[[], None] = lambda: None
        self.tried = threading.Event()

    def write(self, batch: Sequence[int]) -> None:
        self.tried.set()
        self.fail()
        self.batches.append(list(batch))

    def writer(
        self, capacity: int = 100, max_bytes: int = 1000, every: float = 0.01
    ) -> BackgroundWriter[int]:
        return BackgroundWriter(
            "test",
            self.write,
            lambda batch, _: self.lost.extend(batch),
            every=every,
            capacity=capacity,
            max_bytes=max_bytes,
        )


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)


def test_what_was_offered_is_written_in_order_and_batches() -> None:
    sink = Sink()
    writer = sink.writer()
    assert all(writer.offer(n, 1, 1) for n in range(5))
    assert writer.waiting == 5
    writer.start()
    wait_for(lambda: sink.batches == [[0, 1, 2, 3, 4]])
    writer.offer(5, 1, 1)
    wait_for(lambda: sink.batches[1:] == [[5]])
    assert writer.waiting == 0
    writer.close()


def test_more_than_fits_is_refused_by_number_and_by_bytes() -> None:
    writer = Sink().writer(capacity=10, max_bytes=100)
    assert [writer.offer(0, count, 0) for count in (6, 5, 4, 1)] == [True, False, True, False]
    writer = Sink().writer(capacity=10, max_bytes=100)
    assert [writer.offer(0, 1, size) for size in (101, 60, 41, 40, 1)] == [False, True, False, True, False]


def test_a_queue_that_fills_is_written_before_its_time() -> None:
    sink = Sink()
    writer = sink.writer(capacity=10, every=1000)
    writer.start()
    for number in range(6):
        writer.offer(number, 1, 0)
    wait_for(lambda: [n for batch in sink.batches for n in batch] == [0, 1, 2, 3, 4, 5])
    writer.close()


def test_the_store_s_failure_is_tried_again_and_loses_nothing() -> None:
    sink = Sink()
    sink.fail = fail_with(StoreError("the disk is full"))
    writer = sink.writer(capacity=2)
    writer.offer(0, 1, 0)
    writer.start()
    wait_for(sink.tried.is_set)
    assert [writer.offer(n, 1, 0) for n in (1, 2, 3)] == [True, True, False]  # it waits, within bounds
    sink.fail = lambda: None
    wait_for(lambda: sink.batches == [[0], [1, 2]])
    writer.close()
    assert sink.lost == []


def test_a_batch_that_never_can_be_written_is_lost_alone() -> None:
    sink = Sink()
    sink.fail = fail_with(ValueError("nonsense"))
    writer = sink.writer()
    writer.offer(0, 1, 0)
    writer.start()
    wait_for(lambda: sink.lost == [0])
    sink.fail = lambda: None
    writer.offer(1, 1, 0)
    wait_for(lambda: sink.batches == [[1]])
    writer.close()


def test_closing_writes_what_waits_or_says_that_it_is_lost() -> None:
    sink = Sink()
    writer = sink.writer(every=1000)
    writer.start()
    writer.offer(7, 1, 0)
    writer.close()
    assert sink.batches == [[7]]
    sink.fail = fail_with(StoreError("gone"))
    writer = sink.writer(every=1000)
    writer.start()
    writer.offer(8, 1, 0)
    writer.close()
    assert sink.lost == [8]
