"""Whatever text comes in, one entry is one line, and a traceback cannot pass for another entry."""

import io
import logging

from hypothesis import example, given
from hypothesis import strategies as st

from app.logs import FORMAT, LineFormatter


def logged(text: str, error: Exception | None = None) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(FORMAT))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    logger.error("said %s", text, exc_info=error)
    return stream.getvalue()


@given(st.text())
@example("a\nINFO forged\r\x1b[2J\u202e\u2028")
def test_a_message_is_one_printable_line(text: str) -> None:
    written = logged(text)
    assert written.endswith("\n")
    assert written[:-1].isprintable()
    assert "\n" not in written[:-1]


@given(st.text())
@example("bad\n2026-01-01 00:00:00,000 INFO triggerwall: all is well")
def test_no_line_of_a_traceback_looks_like_an_entry(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError as error:
        first, *rest = logged("x", error).rstrip("\n").split("\n")
    assert first.endswith("ERROR x: said x")
    assert len(rest) >= 3
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


def test_ordinary_text_is_left_as_it_is() -> None:
    assert logged("é → 字 1 %").endswith("ERROR x: said é → 字 1 %\n")
