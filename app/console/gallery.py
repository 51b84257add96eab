"""The quarantine as a gallery: its filters from and to the query string, and a page of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from app.console.classes import class_name
from app.console.query import Query
from app.gateway import Gateway
from app.policy import Verdict
from app.storage.decisions import Span
from app.storage.quarantine import HeldFilter, Mark

__all__ = ["FIELDS", "PAGE", "Filter", "gallery", "read_filter"]

PAGE = 60  # images
FIELDS = ("label", "detector", "verdict", "review", "since", "until")
REVIEWS = {
    "open": "not reviewed",
    "done": "reviewed",
    Mark.TRIGGER: "trigger",
    Mark.FALSE_ALARM: "false alarm",
}


@dataclass(frozen=True)
class Filter:
    """What is asked: as the form has it, and as the store takes it."""

    fields: Mapping[str, str]
    asked: HeldFilter

    def query(self, **more: object) -> str:
        """The query string for the same images."""
        return urlencode(
            {**self.fields, **{name: value for name, value in more.items() if value is not None}}
        )


def read_filter(given: Mapping[str, str]) -> Filter:
    """Raises `QueryError`."""
    query = Query(given)
    review = query.text("review")
    mark = None if review in ("open", "done") else query.choice("review", Mark)
    asked = HeldFilter(
        span=Span(query.time("since"), query.time("until")),
        label=query.whole("label"),
        verdict=query.choice("verdict", Verdict),
        detector=query.text("detector"),
        mark=mark,
        reviewed={"open": False, "done": True}.get(review or ""),
    )
    return Filter({name: text for name in FIELDS if (text := query.text(name)) is not None}, asked)


def gallery(gateway: Gateway, filter: Filter, before: int | None) -> dict[str, Any]:
    """One page, the newest first. Blocking. Raises `StoreError`."""
    found = gateway.quarantine.page(filter.asked, before=before, limit=PAGE)
    return {
        "filter": filter,
        "images": [(held, class_name(gateway.info, held.label)) for held in found.images],
        "total": gateway.quarantine.count(filter.asked),
        "totals": gateway.quarantine.totals(),
        "next": found.next,
        "before": before,
        "labels": [(label, class_name(gateway.info, label)) for label in range(gateway.info.num_classes)],
        "detectors": [each.name for each in gateway.firewall.detectors],
        "verdicts": list(Verdict),
        "reviews": REVIEWS,
        "state": gateway.recording.quarantine,
    }
