"""The report says what a calibration buys, and says plainly when it buys nothing."""

import numpy as np
import pytest

from detectors.base import Fit, Floats
from detectors.behaviour import Cost, collapse
from detectors.calibration import BenignSample, calibrate
from detectors.report import (
    Judged,
    blind_labels,
    detector_report,
    leave_one_out_rejections,
    together,
    wilson_interval,
)
from tests.detectors.test_calibration import Plain


class Bounded(Plain):
    """Scores in [0, 1] over three labels."""

    def maxima(self, fit: Fit) -> Floats:
        return np.ones(3)


def report_of(scores: Floats, predicted: np.ndarray, alpha: float) -> dict:
    sample = BenignSample(predicted, None, {"plain": scores[:, None]})
    return detector_report(Bounded(), calibrate(Bounded(), sample, alpha), sample)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 7, 500, 1500])
def test_wilson_interval_ends_at_the_ends(count: int) -> None:
    assert wilson_interval(0, count)[0] == 0.0
    assert wilson_interval(count, count)[1] == 1.0


def test_wilson_interval_against_published_values() -> None:
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_saturated_detector_has_no_power_and_says_so() -> None:
    report = report_of(np.ones(300), np.arange(300) % 3, 0.05)
    assert report["saturation"] == 1.0
    assert report["blind_labels"] == [0, 1, 2]
    assert report["power"].startswith("none: 100% of benign images")
    assert report["achieved_fpr"] == 0.0


def test_a_sink_class_is_a_blind_label() -> None:
    predicted = np.arange(300) % 3
    scores = np.where(predicted == 1, 1.0, np.linspace(0, 0.5, 300))
    report = report_of(scores, predicted, 0.05)
    assert report["blind_labels"] == [1]
    assert report["power"] == (
        "weak: no power against a trigger whose target is one of 1 of the 3 labels (1): 100% of the benign "
        "images predicted so already have the highest possible score"
    )
    assert report["power_level"] == "weak"
    assert report["classes"][1]["saturation"] == 1.0
    assert report["classes"][0]["threshold"] < 0.5


def test_leaving_one_out_judges_every_image_as_a_new_one() -> None:
    """100 scores, α = 5 %: without itself, an image is above the ⌊0.05 · 100⌋ = 5th largest of 99 if it is
    among the five largest."""
    scores = np.linspace(0, 0.9, 100)
    sample = BenignSample(np.zeros(100, dtype=np.int64), None, {"plain": scores[:, None]})
    part = calibrate(Bounded(), sample, 0.05)  # type: ignore[arg-type]
    assert np.flatnonzero(leave_one_out_rejections(part, scores, sample.predicted)).tolist() == [
        95,
        96,
        97,
        98,
        99,
    ]
    report = detector_report(Bounded(), part, sample)  # type: ignore[arg-type]
    assert report["achieved_fpr"] == 0.05
    assert report["power"].startswith("has power")
    assert blind_labels(Bounded(), part).tolist() == []  # type: ignore[arg-type]


def test_a_label_without_images_is_reported_as_such() -> None:
    report = report_of(np.linspace(0, 0.9, 100), np.zeros(100, dtype=np.int64), 0.05)
    assert report["classes"][2]["images"] == 0
    assert report["classes"][2]["achieved_fpr"] is None
    assert report["classes"][2]["compared_with"] == 100


def test_distributions_count_every_image_once() -> None:
    predicted = np.arange(300) % 3
    report = report_of(np.linspace(0, 0.9, 300), predicted, 0.05)
    histogram = report["histogram"]
    assert (histogram["low"], histogram["high"], histogram["beyond"]) == (0.0, 1.0, 0)
    assert sum(histogram["counts"]) == 300
    by_class = [each["histogram"] for each in report["classes"]]
    assert np.sum(by_class, axis=0).tolist() == histogram["counts"]
    low, high = report["classes"][0]["achieved_fpr_interval"]
    assert 0 < low < report["classes"][0]["achieved_fpr"] < high < 0.15


class Informed(Bounded):
    """A detector that knows its cost and how the model behaves."""

    def cost(self, evidence: Floats, predicted: object, fit: Fit, thresholds: Floats, stages: object) -> Cost:
        assert thresholds.shape == (len(evidence),)
        return Cost(5.0, float(thresholds.mean()))

    def describe(self, evidence: Floats, predicted: np.ndarray, fit: Fit) -> dict[str, object]:
        return {"collapse": [collapse("scaling", 3.0, np.ones(len(evidence)), predicted)]}


def test_what_a_detector_does_not_know_is_left_open() -> None:
    scores, predicted = np.linspace(0, 0.9, 300), np.arange(300) % 3
    sample = BenignSample(predicted, None, {"plain": scores[:, None]})
    report = detector_report(Informed(), calibrate(Informed(), sample, 0.05), sample)  # type: ignore[arg-type]
    assert report["cost"]["full"] == 5.0
    assert report["cost"]["expected"] == pytest.approx(np.mean([c["threshold"] for c in report["classes"]]))
    assert report["behaviour"]["collapse"][0]["plain_share"] == pytest.approx(1 / 3)
    plain = report_of(scores, predicted, 0.05)
    assert (plain["cost"], plain["behaviour"]) == (None, None)


def test_together_any_detector_rejects() -> None:
    def judged(*rejected: bool) -> Judged:
        nothing = np.zeros(4)
        return Judged(
            nothing, nothing.astype(np.int64), np.array(rejected), np.zeros(4, bool), nothing, nothing
        )

    found = together([judged(True, False, False, False), judged(True, True, False, False)])
    assert found["achieved_fpr"] == 0.5
    assert found["achieved_fpr_interval"] == list(wilson_interval(2, 4))
