"""Log lines that are lines: nothing that came in a request can end one, or begin another."""

import logging

__all__ = ["LineFormatter", "set_up"]

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
CONTINUED = "    | "  # before each line of a traceback, so that none looks like an entry of its own


class LineFormatter(logging.Formatter):
    """Escapes control characters, also those that a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the library's name)
        record.message = escaped(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).split("\n")  # type: ignore[arg-type]
        return "\n".join(CONTINUED + escaped(line) for line in lines)


def escaped(text: str) -> str:
    """`text` with what is not printable written as Python does: \\n, \\x1b, \\u202e."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def set_up(level: str) -> None:
    """Log to standard error from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # It tells of every request to a remote classifier.
    logging.getLogger("httpx").setLevel(logging.WARNING)
