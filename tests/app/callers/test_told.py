"""The coarse answer is a function of the verdict and three buckets, whatever the scores are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.callers.told import P_VALUES, coarse
from app.policy import Detection
from app.schemas import DetectionBody

scores = st.floats(allow_nan=True, allow_infinity=True)
p_values = st.floats(min_value=1e-6, max_value=1)


def told(score: float, threshold: float, p_value: float | None, suspicious: bool, exact: bool) -> str:
    found = Detection("psc", score, threshold, p_value, suspicious, exact)
    return DetectionBody.of(coarse(found)).model_dump_json()


@given(scores, scores, p_values, st.booleans(), scores, scores, p_values, st.booleans())
def test_all_suspicious_images_are_told_the_same(
    s: float, t: float, p: float, e: bool, s2: float, t2: float, p2: float, e2: bool
) -> None:
    assert told(s, t, p, True, e) == told(s2, t2, p2, True, e2)


@given(scores, scores, p_values, st.booleans())
def test_a_cleared_image_is_told_its_bucket_and_nothing_else(s: float, t: float, p: float, e: bool) -> None:
    bucket = min(each for each in P_VALUES if p <= each)
    assert told(s, t, p, False, e) == told(0.0, 0.0, bucket, False, True)


def test_no_more_than_four_answers_exist() -> None:
    answers = {told(n / 999, 0.7, n / 1000, n <= 10, n % 2 == 0) for n in range(1, 1001)}
    assert len(answers) == 4


@pytest.mark.parametrize(
    ("p_value", "suspicious", "score", "rounded"),
    [
        (0.004, True, 1.0, 0.0),
        (0.004, False, 0.9, 0.1),
        (0.1, False, 0.9, 0.1),
        (0.11, False, 0.5, 0.5),
        (0.51, False, 0.0, 1.0),
        (None, True, 1.0, None),  # the papers' fixed thresholds, without a calibration
        (None, False, 0.0, None),
    ],
)
def test_the_score_is_one_minus_p(
    p_value: float | None, suspicious: bool, score: float, rounded: float | None
) -> None:
    found = coarse(Detection("spc", 0.42, 0.4, p_value, suspicious, True))
    assert found == Detection("spc", pytest.approx(score), math.inf, rounded, suspicious, False)
    assert DetectionBody.of(found).threshold is None
