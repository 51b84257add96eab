""" "What if": other budgets or thresholds, over stored decisions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from app.console.query import SPANS, Query, QueryError
from app.gateway import Gateway
from app.storage.what_if import Rules, what_if

__all__ = ["NEWEST", "THRESHOLD", "what_if_page"]

NEWEST = 20_000  # decisions that a page looks at
THRESHOLD = "t-"  # before a detector's name, in the form
BUDGETS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # percent


def what_if_page(gateway: Gateway, given: Mapping[str, str]) -> dict[str, Any]:
    """Blocking. Raises `QueryError`, `StoreError`."""
    query = Query(given)
    names = [each.name for each in gateway.firewall.detectors]
    percent = query.number("alpha")
    if percent is not None and not 0 < percent < 100:
        raise QueryError("alpha is a share in percent, above 0 and below 100", "alpha")
    thresholds = {n: value for n in names if (value := query.number(THRESHOLD + n)) is not None}
    shown, span = query.recent("within", "week")
    p_limits = {} if percent is None else gateway.p_limits(percent / 100)
    active = gateway.calibrator.active
    return {
        "names": names,
        "percent": percent,
        "budget_now": active.alpha if active else gateway.settings.alpha,
        "budgets": BUDGETS,
        "thresholds": thresholds,
        "limits": _limits(gateway),
        "shown": shown,
        "spans": [*SPANS, "all"],
        "p_limits": p_limits,
        "found": what_if(gateway.database, Rules(thresholds, p_limits), span, NEWEST),
        "most": NEWEST,
        "asked": bool(thresholds or p_limits),
    }


def _limits(gateway: Gateway) -> dict[str, tuple[float, float]]:
    """The lowest and the highest threshold enforced now, by detector, over labels that have one."""
    found = {}
    for watch in gateway.firewall.guard.watches if gateway.firewall.guard else ():
        finite = watch.limits[np.isfinite(watch.limits)]
        if len(finite):
            found[watch.detector] = (float(finite.min()), float(finite.max()))
    return found
