"""Trace context over HTTP, stages, and the spans that a collector gets."""

import logging
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from app.tracing import TraceParent, TracingUnavailable, open_spans
from tests.app.conftest import MakeClient
from tests.app.tiny import form, pngs

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_the_sender_s_trace_is_kept_with_a_span_of_our_own(client: TestClient) -> None:
    answers = [client.get("/livez", headers={"traceparent": PARENT}) for _ in range(2)]
    own = [re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", a.headers["traceparent"]) for a in answers]
    assert own[0] is not None
    assert own[1] is not None
    assert len({SPAN, own[0][1], own[1][1]}) == 3


@pytest.mark.parametrize(
    "header",
    [
        "",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        PARENT + "-extra",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_names_no_trace_is_as_if_it_was_not_sent(client: TestClient, header: str) -> None:
    answer = client.get("/livez", headers={"traceparent": header, "X-Request-ID": "mine"})
    assert "traceparent" not in answer.headers
    assert answer.headers["x-request-id"] == "mine"


def test_two_parents_are_none(client: TestClient) -> None:
    answer = client.get("/livez", headers=[("traceparent", PARENT), ("traceparent", PARENT)])
    assert "traceparent" not in answer.headers


def test_log_lines_know_their_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    from app import context

    seen: list[tuple[str, str]] = []

    class Seeing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((context.request_id.get(), context.trace_id.get()))

    log = logging.getLogger("triggerwall.http")
    handler = Seeing()
    log.addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG, "triggerwall.http"):
            client.get("/info", headers={"X-Request-ID": "req-7", "traceparent": PARENT})
    finally:
        log.removeHandler(handler)
    assert seen == [("req-7", TRACE)]
    assert re.fullmatch(r"GET /info 200 in [\d.]+ ms", caplog.messages[-1])


def test_stages_are_told_to_those_who_may_know_scores(
    calibrated: TestClient, make_client: MakeClient
) -> None:
    answer = calibrated.post("/classify", files=form(pngs(2)))
    stages = re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])
    assert [name for name, _ in stages] == ["decode", "queue", "device"]
    assert all(float(milliseconds) >= 0 for _, milliseconds in stages)
    guarded = make_client(admin_key="s3cret", thresholds="fixed")
    assert "server-timing" not in guarded.post("/classify", files=form(pngs(2))).headers


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Span], threading.Event]]:
    """An OTLP collector: its address, the spans that it got, and a flag that some came."""
    spans: list[Span] = []
    came = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            came.set()
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans, came
    server.shutdown()
    server.server_close()


def test_a_collector_gets_the_request_and_its_stages(
    make_client: MakeClient, collector: tuple[str, list[Span], threading.Event]
) -> None:
    url, spans, _ = collector
    client = make_client(otlp_endpoint=url, thresholds="fixed")
    answer = client.post(
        "/classify", files=form(pngs(2)), headers={"traceparent": PARENT, "X-Request-ID": "req-9"}
    )
    client.post("/classify", files=form(pngs(1)))  # of no trace: one of its own
    client.__exit__(None, None, None)  # what waits is sent at the end
    by_name = {(span.name, span.trace_id.hex() == TRACE): span for span in spans}
    request = by_name["POST /classify", True]
    assert request.parent_span_id.hex() == SPAN
    assert request.span_id.hex() == answer.headers["traceparent"].split("-")[2]
    facts = {each.key: each.value for each in request.attributes}
    assert facts["http.response.status_code"].int_value == 200
    assert facts["triggerwall.request_id"].string_value == "req-9"
    for name in ("decode", "queue", "device"):
        stage = by_name[name, True]
        assert stage.parent_span_id == request.span_id
        assert request.start_time_unix_nano <= stage.start_time_unix_nano + 1_000_000
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano
        assert stage.end_time_unix_nano <= request.end_time_unix_nano + 1_000_000
    assert by_name["POST /classify", False].parent_span_id == b""


def test_without_the_packages_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "app.otlp", None)
    with pytest.raises(TracingUnavailable, match=r"triggerwall\[tracing\]"):
        open_spans("http://127.0.0.1:4318")


def test_a_child_is_another_span_of_the_same_trace() -> None:
    parent = TraceParent.read(PARENT.encode())
    assert parent == TraceParent(TRACE, SPAN, "01")
    child = parent.child()
    assert (child.trace_id, child.flags) == (TRACE, "01")
    assert child.span_id != SPAN
    assert TraceParent.read(str(child).encode()) == child
