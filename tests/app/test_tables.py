"""What is printed is what was answered: nothing in a file's name or a label is taken for markup."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from app.tables import (
    calibration_table,
    calibrations_table,
    classes_table,
    comparison_table,
    results_table,
)


def printed(table: Table) -> str:
    console = Console(file=StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_results() -> None:
    detection = {"detector": "psc", "score": 0.97, "threshold": 0.9, "p_value": 0.004, "suspicious": True}
    detection = {**detection, "exact": False}
    accepted = {"verdict": "accepted", "detections": [], "error": None}
    prediction = {"label": 3, "name": "[bold]stop", "confidence": 0.5}
    text = printed(
        results_table(
            [
                ("[red]a.png", {**accepted, "prediction": prediction}),
                (
                    "b.png",
                    {"verdict": "rejected", "prediction": None, "detections": [detection], "error": None},
                ),
                ("c.png", {"verdict": None, "detections": [], "error": {"detail": "no [/] image"}}),
            ]
        )
    )
    assert "[red]a.png" in text
    assert "[bold]stop (0.500)" in text
    assert "psc 0.970 (bound) / 0.900, p 0.004" in text
    assert "withheld" in text
    assert "no [/] image" in text


def test_a_report() -> None:
    row = {"label": 0, "name": "[red]dot", "images": 7, "threshold": None, "achieved_fpr": 0.25}
    part = {"detector": "psc", "alpha": 0.005, "achieved_fpr": 0.004, "achieved_fpr_interval": [0.001, 0.01]}
    part |= {"saturation": 0.99, "power": "none: [/]", "power_level": "none", "fit": {"k": 12}}
    part |= {"cost": {"full": 3.09, "expected": 1.571}, "classes": [{**row, "saturation": 0.5}]}
    together = {"achieved_fpr": 0.0085, "achieved_fpr_interval": [0.004, 0.0175]}
    report = {"alpha": 0.01, "detectors": [part], "together": together}
    text = printed(calibration_table(report))
    assert "0.85%" in text
    assert "0.40%–1.75%" in text
    assert "0.50%" in text
    assert "0.40%" in text
    assert "0.10%–1.00%" in text
    assert "99.0%" in text
    assert " 12 " in text
    assert "3.1 (1.6)" in text
    assert "none" in text
    assert "[/]" not in text  # the sentence stands below the table
    text = printed(calibration_table({"detectors": [{**part, "power_level": None}]}))  # an older report
    assert "none: [/]" in text
    text = printed(classes_table({"detectors": [part]}))
    assert "0 [red]dot" in text
    assert "—, 25.0%, 50.0%" in text


def test_the_history() -> None:
    model = {"name": "tiny", "version": "1", "digest": "abcdef0123456789"}
    each = {"created_at": "2026-03-04", "model": model, "alpha": 0.01, "images": 7}
    history = {"calibrations": [{"id": "b", "active": False, **each}, {"id": "a", "active": True, **each}]}
    lines = printed(calibrations_table(history)).splitlines()
    assert [("enforced" in line) for line in lines if "tiny 1 (abcdef012345)" in line] == [False, True]


def test_two_calibrations_side_by_side() -> None:
    side = {"alpha": 0.01, "images": 7, "benign_accuracy": None, "fits": True}
    part = {"detector": "psc", "a": {"achieved_fpr": 0.004, "k": 12, "power": "weak: so"}, "b": None}
    found = {"a": {"id": "first", **side}, "b": {"id": "second", **side, "fits": False}, "detectors": [part]}
    text = " ".join(printed(comparison_table(found)).replace("│", " ").split())
    assert "can be enforced here yes no" in text
    assert "psc: achieved FPR 0.40% —" in text
    assert "psc: k 12 —" in text
