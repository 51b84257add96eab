"""Logs: lines for people on a terminal, JSON objects for machines; either names the request.

A line is a line: nothing that came in a request can end one, or begin another.
"""

import json
import logging
import sys
import time
from typing import Literal

from app.context import request_id, trace_id

__all__ = ["JsonFormatter", "LineFormatter", "LogFormat", "set_up"]

LogFormat = Literal["auto", "text", "json"]

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CONTINUED = "    | "  # before each line of a traceback, so that none looks like an entry of its own


class LineFormatter(logging.Formatter):
    """Escapes control characters, also those that a terminal would obey; the request is named at the end."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        record.message = escaped(record.message)
        id = request_id.get()
        return super().formatMessage(record) + (f" [{id}]" if id else "")

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(CONTINUED + escaped(line) for line in lines)


def escaped(text: str) -> str:
    """`text` with what is not printable written as Python does: \\n, \\x1b, \\u202e."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message; request and trace where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = {"request_id": request_id.get(), "trace_id": trace_id.get()}
        entry |= {name: value for name, value in known.items() if value}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up(level: str, format: LogFormat = "auto") -> None:
    """Log to standard error from `level` on. `auto` is text on a terminal, and JSON elsewhere."""
    text = format == "text" or (format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(FORMAT) if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It tells of every request to a remote classifier.
    logging.getLogger("httpx").setLevel(logging.WARNING)
