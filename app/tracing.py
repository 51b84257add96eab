"""Trace context as W3C defines it, and spans for OpenTelemetry where a collector is configured.

A request that names its trace (`traceparent`) is answered with the same trace and the gateway's own span,
and its log lines carry the trace. Spans are recorded and sent only with the setting `otlp_endpoint`, which
needs the optional packages of `triggerwall[tracing]`.
"""

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.context import Stage

__all__ = ["NoSpans", "Spans", "TraceParent", "TracingUnavailable", "open_spans"]

PARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TracingUnavailable(ValueError):  # noqa: N818  (it names the state)
    """Raised at start-up where spans are wanted and what they need is not installed."""


@dataclass(frozen=True)
class TraceParent:
    """The sender's span: `trace_id` of 32, `span_id` of 16, `flags` of 2 hexadecimal digits."""

    trace_id: str
    span_id: str
    flags: str

    @classmethod
    def read(cls, header: bytes) -> "TraceParent | None":
        """None for what is no version 00 header, or names no trace: it is then as if it was not sent."""
        found = PARENT.fullmatch(header)
        if found is None or set(found[1]) == {48} or set(found[2]) == {48}:
            return None
        return cls(*(part.decode() for part in found.groups()))

    def child(self) -> "TraceParent":
        """A span below this one."""
        return TraceParent(self.trace_id, secrets.token_hex(8), self.flags)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


class Spans(Protocol):
    """Where finished requests go as spans."""

    def record(
        self,
        name: str,
        parent: TraceParent | None,
        own: TraceParent | None,
        began: float,
        stages: Sequence[Stage],
        facts: dict[str, str | int],
    ) -> None:
        """A request `name` that began at `began`, seconds of `time.perf_counter`, is answered now."""

    def close(self) -> None:
        """Send what waits. Blocks for a few seconds at most."""


class NoSpans:
    """Nothing is recorded."""

    def record(self, *_: Any) -> None:
        return

    def close(self) -> None:
        return


def open_spans(endpoint: str | None) -> Spans:
    """Spans that go to the OTLP collector at `endpoint`. Raises `TracingUnavailable`."""
    if endpoint is None:
        return NoSpans()
    try:
        from app.otlp import OtlpSpans
    except ImportError as error:
        raise TracingUnavailable(
            "otlp_endpoint needs OpenTelemetry: pip install 'triggerwall[tracing]'"
        ) from error
    return OtlpSpans(endpoint)


def unix_ns(moment: float) -> int:
    """`moment`, seconds of `time.perf_counter`, as Unix time in nanoseconds."""
    return time.time_ns() - round((time.perf_counter() - moment) * 1e9)
