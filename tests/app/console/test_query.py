"""Parameters of pages: empty ones are none, senseless ones are refused by name."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app.console.query import Query, QueryError
from app.policy import Mode
from app.storage.decisions import Span


@pytest.mark.parametrize(
    ("read", "text", "found"),
    [
        (Query.text, "  a ", "a"),
        (Query.whole, "17", 17),
        (Query.whole, str(2**63 - 1), 2**63 - 1),
        (Query.number, "-0.5", -0.5),
        (Query.number, "1e-3", 0.001),
        (Query.time, "2026-03-04T05:06", datetime(2026, 3, 4, 5, 6, tzinfo=UTC)),
        (Query.time, "2026-03-04T05:06+01:00", datetime(2026, 3, 4, 4, 6, tzinfo=UTC)),
    ],
)
def test_what_is_read(read: Callable[[Query, str], object], text: str, found: object) -> None:
    assert read(Query({"x": text}), "x") == found
    assert read(Query({"x": "  "}), "x") is None
    assert read(Query({}), "x") is None


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (Query.whole, "-1"),
        (Query.whole, "1.5"),
        (Query.whole, "²"),
        (Query.whole, str(2**63)),
        (Query.whole, "9" * 5000),
        (Query.number, "nan"),
        (Query.number, "inf"),
        (Query.number, "<b>"),
        (Query.time, "yesterday"),
        (Query.time, "0001-01-01T00:00"),
        (Query.time, "9999-12-31T23:59-23:59"),
    ],
)
def test_what_is_refused(read: Callable[[Query, str], object], text: str) -> None:
    with pytest.raises(QueryError) as caught:
        read(Query({"x": text}), "x")
    assert caught.value.part == "x"
    assert text not in str(caught.value)  # what was sent is not sent back


def test_choices() -> None:
    assert Query({"mode": "monitor"}).choice("mode", Mode) is Mode.MONITOR
    with pytest.raises(QueryError, match="mode is one of enforce, monitor"):
        Query({"mode": "off"}).choice("mode", Mode)


def test_recent_times() -> None:
    assert Query({"within": "all"}).recent("within", "day") == ("all", Span())
    name, span = Query({}).recent("within", "day")
    assert name == "day"
    assert span.since is not None
    assert abs(datetime.now(UTC) - timedelta(days=1) - span.since) < timedelta(minutes=1)
    with pytest.raises(QueryError):
        Query({"within": "year"}).recent("within", "day")
