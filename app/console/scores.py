"""How each detector's scores are distributed, cleared and suspicious, against the thresholds enforced."""

from typing import Any

import numpy as np

from app.console.plots import distribution_plot
from app.gateway import Gateway
from app.storage.decisions import Span
from app.storage.what_if import score_distribution

__all__ = ["NEWEST", "scores_page"]

NEWEST = 20_000  # decisions that a page looks at
BEYOND = 3.0  # times the highest threshold: what scores more is drawn at the right end


def scores_page(gateway: Gateway, span: Span) -> list[dict[str, Any]]:
    """One entry per detector. Blocking. Raises `StoreError`."""
    return [_entry(gateway, each.name, span) for each in gateway.firewall.detectors]


def _entry(gateway: Gateway, name: str, span: Span) -> dict[str, Any]:
    thresholds = _thresholds(gateway, name)
    highest = BEYOND * max(thresholds) if thresholds and max(thresholds) > 0 else None
    found = score_distribution(gateway.database, name, span, most=NEWEST, highest=highest)
    active = gateway.calibrator.active
    parts = active.report["detectors"] if active else []
    part = next((part for part in parts if part["detector"] == name), None)
    return {
        "name": name,
        "cleared": sum(found.cleared),
        "suspicious": sum(found.suspicious),
        "bounds": found.bounds,
        "thresholds": thresholds,
        "plot": distribution_plot(found, thresholds, name) if found.edges else None,
        "power": part["power"] if part else None,
        "blind": len(part["blind_labels"]) if part else 0,
    }


def _thresholds(gateway: Gateway, name: str) -> list[float]:
    """Those enforced now, of all labels that have one, ascending."""
    for watch in gateway.firewall.guard.watches if gateway.firewall.guard else ():
        if watch.detector == name:
            found: list[float] = np.unique(watch.limits[np.isfinite(watch.limits)]).tolist()
            return found
    return []
