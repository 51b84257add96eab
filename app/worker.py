"""The one thread that owns the device, so that blocking work never holds up the event loop."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from app.threads import name_this_thread

__all__ = ["Worker", "WorkerDied"]

log = logging.getLogger("triggerwall.worker")

P = ParamSpec("P")
R = TypeVar("R")


class WorkerDied(RuntimeError):  # noqa: N818  (it names what happened)
    """Raised for the call during which the thread was ended, from within or from without."""


class Worker:
    """Runs functions one after another on a single thread, in the order in which they were given.

    A thread that is killed is replaced: the call it was at fails with `WorkerDied`, the others are run.
    (An executor of the standard library would never run anything again.)
    """

    def __init__(self, name: str = "device") -> None:
        self._name = name
        self._calls: deque[_Call] = deque()  # the first stays until it has ended: nobody loses it
        self._changed = threading.Condition()
        self._closing = False
        self._began: float | None = None  # when the call under way began
        self._thread = self._start()

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Await `function(*args, **kwargs)`, run on the thread. Whatever it raises is raised here, and
        `WorkerDied` where it tries to end the thread.

        A caller cancelled before its turn takes its function out of the line; once started it runs to
        its end, unheard.
        """

        def timed() -> R:
            self._began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                self._began = None

        call = _Call(timed)
        with self._changed:
            if self._closing:
                raise RuntimeError("the worker is closed")
            self._calls.append(call)
            self._changed.notify()
        result: R = await asyncio.wrap_future(call.answer)
        return result

    def alive(self) -> None:
        """The call under way, on whatever threads, gives a sign of life: `busy_for` begins anew."""
        if self._began is not None:
            self._began = time.monotonic()

    def busy_for(self) -> float:
        """Seconds since the call under way began or last gave a sign of life; 0 between calls."""
        began = self._began  # read once: the thread may end the call meanwhile
        return 0.0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Finish what was given, then end the thread. Blocks."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        while (thread := self._thread).is_alive():
            thread.join()

    # --- the thread -------------------------------------------------------------------------------

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._live, name=self._name, daemon=True)
        thread.start()
        return thread

    def _live(self) -> None:
        finished = False
        name_this_thread(self._name)
        try:
            self._work()
            finished = True
        except BaseException:
            log.critical("the %s thread was ended; another takes its place", self._name, exc_info=True)
        finally:
            if not finished:
                self._succeed()

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.run()
            self._calls.popleft()

    def _next(self) -> "_Call | None":
        """The first call in line; waits for one. None when closing and nothing is left."""
        with self._changed:
            while not self._calls and not self._closing:
                self._changed.wait()
            return self._calls[0] if self._calls else None

    def _succeed(self) -> None:
        """Give the line to a new thread. What was under way has no other answer than this."""
        with self._changed:
            if self._calls and self._calls[0].begun:
                self._calls.popleft().fail(WorkerDied("the thread was ended in the middle of it"))
            self._thread = self._start()


class _Call:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.answer: Future[Any] = Future()
        self.begun = False
        self._function = function

    def run(self) -> None:
        self.begun = True
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            result = self._function()
        except Exception as error:
            self.answer.set_exception(error)
        except BaseException as error:  # it would end the event loop, where it is raised next
            died = WorkerDied(f"it tried to end the thread: {error!r}")
            died.__cause__ = error
            self.answer.set_exception(died)
        else:
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
