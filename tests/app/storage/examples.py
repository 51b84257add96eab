"""Decisions to keep, in one line each."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from app.policy import Detection, Mode, Verdict
from app.storage.decisions import Decision
from app.storage.ids import first_id

__all__ = ["START", "after", "decision", "digest", "said"]

START = datetime(2026, 3, 4, 5, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def digest(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def said(
    score: float,
    threshold: float = 0.5,
    p_value: float | None = 0.5,
    *,
    detector: str = "psc",
    exact: bool = True,
) -> Detection:
    return Detection(detector, score, threshold, p_value, not score <= threshold, exact)


def decision(seconds: float, *detections: Detection, image: object = None, **changed: Any) -> Decision:
    """One made `seconds` after `START`; rejected where a detection is suspicious. Its number is the first
    of its time."""
    suspicious = any(each.suspicious for each in detections)
    at = after(seconds)
    values: dict[str, Any] = {
        "id": first_id(at),
        "at": at,
        "request_id": f"request-{seconds}",
        "place": 0,
        "image_sha256": digest(seconds if image is None else image),
        "label": 3,
        "confidence": 0.75,
        "verdict": Verdict.REJECTED if suspicious else Verdict.ACCEPTED,
        "mode": Mode.ENFORCE,
        "calibration_id": "a",
        "detections": detections,
    }
    return Decision(**{**values, **changed})
