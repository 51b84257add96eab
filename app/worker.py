"""The threads that own the device, so that blocking work never holds up the event loop."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from app.threads import name_this_thread

__all__ = ["Worker", "WorkerDied"]

log = logging.getLogger("triggerwall.worker")

P = ParamSpec("P")
R = TypeVar("R")


class WorkerDied(RuntimeError):  # noqa: N818  (it names what happened)
    """Raised for the call during which the thread was ended, from within or from without."""


class Worker:
    """Runs functions in the order in which they were given: one after another on a thread of its own, or,
    those that may run beside each other, on as many threads as there are lanes.

    A call that runs alone begins when all before it have ended, and none begins before it ends. A thread
    that is killed is replaced: the call it was at fails with `WorkerDied`, the others are run. (An executor
    of the standard library would never run anything again.)
    """

    def __init__(self, name: str = "device", lanes: int = 1, prepare: Callable[[], object] = int) -> None:
        """With one `lanes` every call runs alone; each thread of several calls `prepare` first."""
        self.lanes = lanes
        self._prepare = prepare
        self._line: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seats = [_Seat(name, beside=False)]
        if lanes > 1:
            self._seats += [_Seat(f"{name}-{number}", beside=True) for number in range(1, lanes + 1)]
        for seat in self._seats:
            self._start(seat)

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await `function(*args, **kwargs)`, run alone. Whatever it raises is raised here, and `WorkerDied`
        where it tries to end the thread.

        A caller cancelled before its turn takes its function out of the line; once started it runs to
        its end, unheard.
        """
        result: R = await self._given(_Call(lambda: function(*args, **kwargs), beside=False))
        return result

    async def run_beside(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `run`, beside others that were given so."""
        result: R = await self._given(_Call(lambda: function(*args, **kwargs), beside=self.lanes > 1))
        return result

    def alive(self) -> None:
        """The calls under way, on whatever threads, give a sign of life: `busy_for` begins anew."""
        for seat in self._seats:
            if seat.began is not None:
                seat.began = time.monotonic()

    def busy_for(self) -> float:
        """Seconds since the oldest call under way began or last gave a sign of life; 0 between calls."""
        now = time.monotonic()
        begun = [seat.began for seat in self._seats]  # read once: a thread may end its call meanwhile
        return max((now - began for began in begun if began is not None), default=0.0)

    def close(self) -> None:
        """Finish what was given, then end the threads. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for seat in self._seats:
            while (thread := seat.thread) is not None and thread.is_alive():
                thread.join()

    def _given(self, call: "_Call") -> "asyncio.Future[Any]":
        with self._changed:
            if self._closing:
                raise RuntimeError("the worker is closed")
            self._line.append(call)
            self._changed.notify_all()
        return asyncio.wrap_future(call.answer)

    # --- the threads ------------------------------------------------------------------------------

    def _start(self, seat: "_Seat") -> None:
        thread = threading.Thread(target=self._live, args=(seat,), name=seat.name, daemon=True)
        seat.thread = thread
        thread.start()

    def _live(self, seat: "_Seat") -> None:
        finished = False
        try:
            name_this_thread(seat.name)
            if seat.beside:
                self._prepare()
            self._work(seat)
            finished = True
        except BaseException:
            log.critical("the %s thread was ended; another takes its place", seat.name, exc_info=True)
        finally:
            if not finished:
                self._succeed(seat)

    def _work(self, seat: "_Seat") -> None:
        while (call := self._next(seat)) is not None:
            call.run(seat)
            with self._changed:
                seat.call = None
                self._changed.notify_all()

    def _next(self, seat: "_Seat") -> "_Call | None":
        """The first call in line, once it is `seat`'s turn; None when closing and nothing is left."""
        with self._changed:
            while not (self._line and self._may_begin(self._line[0], seat)):
                if self._closing and not self._line:
                    return None
                self._changed.wait()
            seat.call = self._line[0]  # before it leaves the line: nobody loses it
            self._line.popleft()
            self._changed.notify_all()
            return seat.call

    def _may_begin(self, call: "_Call", seat: "_Seat") -> bool:
        under_way = [other.call for other in self._seats if other.call is not None]
        return call.beside is seat.beside and all(call.beside and other.beside for other in under_way)

    def _succeed(self, seat: "_Seat") -> None:
        """Give the seat to a new thread. What was under way has no other answer than this."""
        with self._changed:
            call, seat.call, seat.began = seat.call, None, None
            if call is not None and call.begun:
                call.fail(WorkerDied("the thread was ended in the middle of it"))
            elif call is not None and call not in self._line:
                self._line.appendleft(call)
            self._start(seat)
            self._changed.notify_all()


@dataclass(slots=True, eq=False)
class _Seat:
    """A thread's place, which outlives it. `beside`: it takes the calls that may run beside each other, and
    no others. `began`: when the call under way began."""

    name: str
    beside: bool
    thread: threading.Thread | None = None
    call: "_Call | None" = None
    began: float | None = None


class _Call:
    def __init__(self, function: Callable[[], Any], *, beside: bool) -> None:
        self.answer: Future[Any] = Future()
        self.beside = beside
        self.begun = False
        self._function = function

    def run(self, seat: _Seat) -> None:
        self.begun = True
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            result = self._timed(seat)
        except Exception as error:
            self.answer.set_exception(error)
        except BaseException as error:  # it would end the event loop, where it is raised next
            died = WorkerDied(f"it tried to end the thread: {error!r}")
            died.__cause__ = error
            self.answer.set_exception(died)
        else:
            self.answer.set_result(result)

    def _timed(self, seat: _Seat) -> Any:
        seat.began = time.monotonic()
        try:
            return self._function()
        finally:
            seat.began = None

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
