"""What is known of the request that the running code works for: for logs, traces and what is recorded."""

import time
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Stage", "note", "request_id", "server_timing", "stages", "trace_id"]


@dataclass(frozen=True)
class Stage:
    """A part of the work on a request; `began` and `ended` in seconds of `time.perf_counter`."""

    name: str
    began: float
    ended: float


request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being answered; empty outside of one."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace that the request belongs to, 32 hexadecimal digits; empty where its sender named none."""

stages: ContextVar[list[Stage] | None] = ContextVar("stages", default=None)
"""The stages of the request so far."""


def note(name: str, began: float, ended: float | None = None) -> None:
    """The stage `name` of the running request is over, now by default."""
    noted = stages.get()
    if noted is not None:
        noted.append(Stage(name, began, time.perf_counter() if ended is None else ended))


def server_timing() -> str:
    """The stages so far as the value of a Server-Timing header, in milliseconds."""
    return ", ".join(f"{each.name};dur={1000 * (each.ended - each.began):.1f}" for each in stages.get() or ())
