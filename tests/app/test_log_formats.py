"""Log lines for people and for machines: which of them, and what they say of the request."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from app import context
from app.logs import LogFormat, set_up


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logged(
    monkeypatch: pytest.MonkeyPatch, format: LogFormat, stream: io.StringIO | None = None
) -> list[str]:
    """What three records look like: plain, within a request, and with an exception."""
    stream = stream or io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up("info", format)
    log = logging.getLogger("triggerwall.test")
    log.debug("not shown")
    log.info("plain %d", 1)
    id, trace = context.request_id.set("req-1"), context.trace_id.set("a" * 32)
    log.warning("two\nlines \x1b[31mé")
    context.request_id.reset(id)
    context.trace_id.reset(trace)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("it failed")
    return stream.getvalue().splitlines()


def test_json_has_a_line_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, within, failed = map(json.loads, logged(monkeypatch, "json"))
    assert (plain["level"], plain["logger"], plain["message"]) == ("info", "triggerwall.test", "plain 1")
    assert plain["time"].endswith("Z")
    assert "request_id" not in plain
    assert (within["message"], within["request_id"]) == ("two\nlines \x1b[31mé", "req-1")
    assert within["trace_id"] == "a" * 32
    assert failed["message"] == "it failed"
    assert failed["exception"].endswith("ValueError: why")


def test_text_names_the_request_and_keeps_to_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = logged(monkeypatch, "text")
    assert lines[0].endswith("INFO triggerwall.test: plain 1")
    assert lines[1].endswith("two\\nlines \\x1b[31mé [req-1]")
    assert lines[-1].endswith("ValueError: why")


def test_a_terminal_gets_text_and_a_pipe_json(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged(monkeypatch, "auto", Terminal())[0].endswith("plain 1")
    assert json.loads(logged(monkeypatch, "auto")[0])["message"] == "plain 1"
