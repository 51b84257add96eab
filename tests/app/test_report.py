"""The sentences of a calibration report."""

import numpy as np
import pytest

from app.report import (
    Skipped,
    benign_accuracy,
    detector_warnings,
    listing,
    name_alternatives,
    passes,
    sample_warnings,
    share_warnings,
    with_names,
)
from detectors.base import Access
from detectors.calibration import BenignSample


def sample(predicted: list[int], labels: list[int] | None = None) -> BenignSample:
    known = None if labels is None else np.array(labels)
    return BenignSample(np.array(predicted), known, {})


def test_labels_nobody_was_predicted_as_and_single_ones() -> None:
    assert sample_warnings(sample([0, 0, 1]), 4, []) == [
        "no benign image was predicted as labels 2, 3: the budget does not hold for images predicted so, "
        "which are judged by the scores of all others",
        "only one benign image was predicted as label 1: send more of these",
    ]
    assert sample_warnings(sample([0, 0, 1, 1]), 2, []) == []


def test_copies_are_named() -> None:
    predicted = np.zeros(4, dtype=np.int64)
    copies = BenignSample(predicted, None, {"profile": np.full((4, 3), 0.5)})
    assert sample_warnings(copies, 1, [])[0].startswith("only 1 of 4 images differ in what is seen of them")
    different = BenignSample(predicted, None, {"profile": np.arange(12).reshape(4, 3) / 7})
    assert sample_warnings(different, 1, []) == []
    labels_alone = BenignSample(predicted, None, {"spc": np.ones((4, 5))})  # equal answers are no copies
    assert sample_warnings(labels_alone, 1, []) == []


def test_labels_the_classifier_does_not_agree_with() -> None:
    wrong = sample([0, 0, 1, 1], [1, 1, 1, 0])
    assert benign_accuracy(wrong) == 0.25
    assert sample_warnings(wrong, 2, [])[0].startswith("the classifier agrees with only 25% of the labels")
    assert benign_accuracy(sample([0])) is None


def test_images_that_were_left_out() -> None:
    assert sample_warnings(sample([0, 0]), 1, [Skipped("a", "b")] * 3) == [
        "3 images could not be used and were left out"
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


def powers(**levels: str) -> list[dict[str, str | None]]:
    return [
        {"detector": name, "power_level": level, "power": f"{level}: so"} for name, level in levels.items()
    ]


def test_a_detector_without_power_names_one_that_has_it() -> None:
    reports = powers(profile="has power", psc="weak", spc="none")
    name_alternatives(reports, Access.WEIGHTS)
    assert [each["instead"] for each in reports] == [None, "profile", "profile"]
    assert reports[1]["power"] == "weak: so; rely there on profile, which has power"
    assert reports[2]["power"] == "none: so; use profile instead, which has power"


def test_where_none_has_power_one_that_was_not_tried_is_named() -> None:
    reports = powers(spc="none")
    name_alternatives(reports, Access.PROBABILITIES)
    assert reports[0]["instead"] == "profile"
    assert reports[0]["power"].endswith("; no other detector here has more: add profile and calibrate again")


def test_what_a_classifier_does_not_give_access_to_is_not_named() -> None:
    reports = powers(spc="none", nspc="none")
    name_alternatives(reports, Access.LABELS)
    assert reports[0]["instead"] == "label_profile"  # the first that labels suffice for
    assert reports[0]["power"].endswith("add label_profile and calibrate again")


def test_passes_add_up_and_shared_ones_count_once() -> None:
    costs = {"psc": {"full": 3.0, "expected": 1.5}, "spc": {"full": 5.0, "expected": 2.0}}
    reports = [{"detector": name, "cost": cost} for name, cost in costs.items()]
    assert passes(reports) == {"full": 9.0, "expected": 4.5}
    assert passes([*reports, {"detector": "nspc", "cost": costs["spc"]}]) == passes(reports)
    assert passes([*reports, {"detector": "other", "cost": None}]) is None


def test_shares_that_add_up_to_more_than_the_budget_are_explained() -> None:
    reports: list[dict[str, str | None]] = [
        {**each, "thresholds": "conformal"} for each in powers(a="has power", b="weak", c="none")
    ]
    (sentence,) = share_warnings(reports)
    assert sentence == "c can reject nothing here and so spends nothing of the budget: the other 2 share it"
    assert share_warnings(reports[:2]) == []


def test_suspects_by_name() -> None:
    assert with_names({"suspects": [2, 0]}, ["a", "b", "c"])["suspect_parts"] == ["c", "a"]  # type: ignore[index]
    assert with_names({"suspects": [2, 0]}, [])["suspect_parts"] == []  # type: ignore[index]
    assert with_names(None, ["a"]) is None
