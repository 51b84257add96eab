"""What the pages are asked by: parameters of a URL or fields of a form, where an empty one is none."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from app.storage.decisions import Span

__all__ = ["SPANS", "Query", "QueryError"]

Choice = TypeVar("Choice", bound=StrEnum)

LARGEST = 2**63 - 1  # of a number in the database
SPANS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}


class QueryError(Exception):
    """Raised for a parameter that makes no sense; `part` names it."""

    def __init__(self, detail: str, part: str) -> None:
        super().__init__(detail)
        self.part = part


class Query:
    """Reads one parameter at a time. Every method gives None for what is missing or empty, and raises
    `QueryError` for what makes no sense."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str) -> str | None:
        return self._given.get(name, "").strip() or None

    def whole(self, name: str) -> int | None:
        """A number from 0 to 2⁶³ − 1."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= LARGEST):
            raise QueryError(f"{name} is a whole number", name)
        return int(text)

    def number(self, name: str) -> float | None:
        """A finite number."""
        text = self.text(name)
        try:
            value = None if text is None else float(text)
        except ValueError:
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise QueryError(f"{name} is a number", name)
        return value

    def choice(self, name: str, of: type[Choice]) -> Choice | None:
        text = self.text(name)
        try:
            return None if text is None else of(text)
        except ValueError:
            raise QueryError(f"{name} is one of {', '.join(of)}", name) from None

    def time(self, name: str) -> datetime | None:
        """As `<input type=datetime-local>` sends it, taken as UTC."""
        text = self.text(name)
        try:
            found = None if text is None else datetime.fromisoformat(text)
            if found is not None and not 2000 <= found.year < 2200:
                raise ValueError
        except ValueError:
            raise QueryError(f"{name} is a time in UTC like 2026-03-04T05:06", name) from None
        if found is None or found.tzinfo is not None:
            return found
        return found.replace(tzinfo=UTC)

    def recent(self, name: str, default: str) -> tuple[str, Span]:
        """One of `SPANS`, or `all`, and from when on that is."""
        chosen = self.text(name) or default
        if chosen == "all":
            return chosen, Span()
        if chosen not in SPANS:
            raise QueryError(f"{name} is one of {', '.join(SPANS)}, all", name)
        return chosen, Span(since=datetime.now(UTC) - SPANS[chosen])
