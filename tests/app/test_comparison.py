"""What changes between two calibrations, in words."""

from datetime import UTC, datetime
from typing import Any

from app.comparison import compare
from app.storage.calibrations import Record


def part(**changes: Any) -> dict[str, Any]:
    classes = [
        {"label": label, "threshold": value} for label, value in enumerate(changes.pop("at", (0.5, 0.6)))
    ]
    plain = {
        "detector": "psc", "settings": {"n": 5}, "fit": {"k": 12}, "alpha": 0.01, "achieved_fpr": 0.01,
        "achieved_fpr_interval": [0.005, 0.02], "saturation": 0.1, "blind_labels": [],
        "power": "has power: yes",
    }  # fmt: skip
    return {**plain, "classes": classes, **changes}


def record(*parts: dict[str, Any], id: str = "a", digest: str = "d" * 64, **changes: Any) -> Record:
    report = {"detectors": list(parts), "labelled": True, "benign_accuracy": 0.9, "conditioning": "class"}
    values = {"alpha": 0.01, "images": 100, **changes}
    created = datetime(2026, 3, 4, tzinfo=UTC)
    return Record(id, created, digest, "tiny", "1", content={}, report=report, **values)


def differences(a: Record, b: Record) -> list[str]:
    found: list[str] = compare(a, b, None, None)["differences"]
    return found


def test_a_calibration_is_no_different_from_itself() -> None:
    assert differences(record(part()), record(part())) == []


def test_everything_that_may_change() -> None:
    old = record(part(blind_labels=[0], power="weak: so", at=(1.0, 0.6)))
    new = record(
        part(fit={"k": 11}, blind_labels=[1], achieved_fpr=0.05, achieved_fpr_interval=[0.04, 0.06]),
        id="b", digest="e" * 64, alpha=0.02, images=200,
    )  # fmt: skip
    assert differences(old, new) == [
        "they belong to different classifiers: tiny 1 (dddddddddddd) and tiny 1 (eeeeeeeeeeee)",
        "the false-positive budget goes from 1.00% to 2.00%",
        "the benign images go from 100 to 200",
        "psc: k goes from 12 to 11",
        "psc: its power goes from “weak” to “has power”",
        "psc: it can now reject images predicted as 0",
        "psc: it can no longer reject images predicted as 1",
        "psc: the achieved false-positive rate goes from 1.00% to 5.00%, more than chance explains",
        "psc: 1 of 2 thresholds differ, most for label 0: 1 to 0.5",
    ]


def test_a_detector_that_only_one_has() -> None:
    found = compare(record(part()), record(part(detector="spc")), None, "it was made for another classifier")
    assert [(each["detector"], each["a"] is None, each["b"] is None) for each in found["detectors"]] == [
        ("psc", False, True),
        ("spc", True, False),
    ]
    assert found["detectors"][1]["thresholds"] == [
        {"label": 0, "a": None, "b": 0.5},
        {"label": 1, "a": None, "b": 0.6},
    ]
    assert "spc watches only in the second" in found["differences"]
    assert (found["a"]["fits"], found["b"]["fits"]) == (True, False)
    assert found["b"]["misfit"] == "it was made for another classifier"


def test_labels_that_only_one_was_made_with() -> None:
    right, wrong = record(part()), record(part())
    wrong.report["benign_accuracy"] = 0.4
    said = "the second was made with labels that the classifier mostly disagrees with"
    assert differences(right, wrong) == [said]
    assert differences(wrong, wrong) == []
