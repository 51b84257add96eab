"""Spans by OpenTelemetry's SDK, sent over HTTP by a thread of its own. Imported only where it is wanted."""

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from app.context import Stage
from app.tracing import TraceParent, unix_ns

__all__ = ["OtlpSpans"]

SERVER_ERROR = 500


class _GivenIds(IdGenerator):
    """The span id that the caller was told already, once; random ones else. One thread records spans."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.given: int | None = None

    def generate_span_id(self) -> int:
        given, self.given = self.given, None
        return self._random.generate_span_id() if given is None else given

    def generate_trace_id(self) -> int:
        return self._random.generate_trace_id()


class OtlpSpans:
    """One server span per request, and one below it per stage. What the collector does not take in time is
    dropped by the SDK's bounded queue; requests never wait for it."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint`: an OTLP/HTTP collector, as http://collector:4318."""
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            id_generator=self._ids,
            resource=Resource.create({"service.name": "triggerwall"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("triggerwall")

    def record(
        self,
        name: str,
        parent: TraceParent | None,
        own: TraceParent | None,
        began: float,
        stages: Sequence[Stage],
        facts: dict[str, str | int],
    ) -> None:
        if own is not None:
            self._ids.given = int(own.span_id, 16)
        above = None if parent is None else set_span_in_context(NonRecordingSpan(_context(parent)))
        span = self._tracer.start_span(
            name, above, kind=SpanKind.SERVER, attributes=facts, start_time=unix_ns(began)
        )
        self._ids.given = None  # an unsampled span asked for none
        if int(facts.get("http.response.status_code", 0)) >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span)
        for stage in stages:
            part = self._tracer.start_span(stage.name, within, start_time=unix_ns(stage.began))
            part.end(unix_ns(stage.ended))
        span.end()

    def close(self) -> None:
        self._provider.shutdown()


def _context(parent: TraceParent) -> SpanContext:
    flags = TraceFlags(int(parent.flags, 16))
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
