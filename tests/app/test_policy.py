"""Scores → verdicts."""

import math

import pytest

from app.policy import Detection, Mode, Verdict, decide, is_suspicious

CLEAR = Detection("spc", 0.2, 0.9, 0.5, suspicious=False, exact=True)
ALARM = Detection("psc", 1.0, 0.9, 0.01, suspicious=True, exact=True)


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (0.5, 0.4, True),
        (0.4, 0.4, False),  # strictly above
        (1e9, math.inf, False),
        (math.nan, 0.4, True),  # never cleared
        (0.4, math.nan, True),
    ],
)
def test_suspicious(score: float, threshold: float, expected: bool) -> None:
    assert is_suspicious(score, threshold) is expected


@pytest.mark.parametrize(
    ("detections", "suspicious"),
    [([CLEAR], False), ([CLEAR, CLEAR], False), ([CLEAR, ALARM], True), ([ALARM], True), ([], True)],
)
def test_one_detector_is_enough_and_nobody_is_not(detections: list[Detection], suspicious: bool) -> None:
    assert decide(detections, Mode.ENFORCE) is (Verdict.REJECTED if suspicious else Verdict.ACCEPTED)
    assert decide(detections, Mode.MONITOR) is (Verdict.FLAGGED if suspicious else Verdict.ACCEPTED)
