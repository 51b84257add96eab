"""The sentences of a calibration report."""

import numpy as np
import pytest

from app.report import Skipped, benign_accuracy, detector_warnings, listing, sample_warnings
from detectors.calibration import BenignSample


def sample(predicted: list[int], labels: list[int] | None = None) -> BenignSample:
    known = None if labels is None else np.array(labels)
    return BenignSample(np.array(predicted), known, {})


def test_labels_nobody_was_predicted_as_and_single_ones() -> None:
    assert sample_warnings(sample([0, 0, 1]), 4, []) == [
        "no benign image was predicted as labels 2, 3: images predicted so are judged by the scores of all "
        "others",
        "only one benign image was predicted as label 1: send more of these",
    ]
    assert sample_warnings(sample([0, 0, 1, 1]), 2, []) == []


def test_labels_the_classifier_does_not_agree_with() -> None:
    wrong = sample([0, 0, 1, 1], [1, 1, 1, 0])
    assert benign_accuracy(wrong) == 0.25
    assert sample_warnings(wrong, 2, [])[0].startswith("the classifier agrees with only 25% of the labels")
    assert benign_accuracy(sample([0])) is None


def test_images_that_were_left_out() -> None:
    assert sample_warnings(sample([0, 0]), 1, [Skipped("a", "b")] * 3) == [
        "3 images could not be read and were left out"
    ]


def test_detectors_without_power_and_their_notes() -> None:
    conformal = {"thresholds": "conformal"}
    reports = [
        {
            "detector": "psc",
            "fit": {"notes": ["k lowered"]},
            "blind_labels": [],
            "power": "has power",
            **conformal,
        },
        {"detector": "spc", "fit": {}, "blind_labels": [0], "power": "none: saturated", **conformal},
    ]
    assert detector_warnings(reports) == ["psc: k lowered", "the power of spc is none: saturated"]


def test_a_fixed_threshold_is_not_reported_as_a_kept_budget() -> None:
    report = {"detector": "psc", "fit": {}, "blind_labels": [], "power": "", "thresholds": "fixed"}
    (sentence,) = detector_warnings([{**report, "achieved_fpr": 0.182}])
    assert "rejects 18.2% of these benign images; no budget applies" in sentence


@pytest.mark.parametrize(
    ("labels", "words"), [([3], "label 3"), ([3, 5], "labels 3, 5"), (list(range(12)), "and 2 more")]
)
def test_listing(labels: list[int], words: str) -> None:
    assert words in listing(labels)
