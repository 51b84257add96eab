"""Scores + calibration + mode → verdict. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Detection", "Mode", "Verdict", "decide", "is_suspicious"]


class Mode(StrEnum):
    """`enforce` withholds the prediction of a suspicious image; `monitor` only flags it."""

    ENFORCE = "enforce"
    MONITOR = "monitor"


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    FLAGGED = "flagged"
    UNINSPECTED = "uninspected"  # let through because detectors could not look, which a setting allows


@dataclass(frozen=True)
class Detection:
    """What one detector said of one image. `p_value` is None where no benign scores are known."""

    detector: str
    score: float
    threshold: float
    p_value: float | None
    suspicious: bool
    exact: bool


def is_suspicious(score: float, threshold: float) -> bool:
    """Strictly above the threshold. A score that is not a number is never cleared."""
    return not score <= threshold


def decide(detections: Sequence[Detection], mode: Mode, *, failed_open: bool = False) -> Verdict:
    """One suspicious detector is enough: the budget was split among them, so their union keeps it.

    An image that no detector has looked at is suspicious; unless the others `failed_open`, then only what
    was found counts.
    """
    if failed_open and not any(detection.suspicious for detection in detections):
        return Verdict.UNINSPECTED
    if detections and not any(detection.suspicious for detection in detections):
        return Verdict.ACCEPTED
    return Verdict.REJECTED if mode is Mode.ENFORCE else Verdict.FLAGGED
