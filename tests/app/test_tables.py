"""What is printed is what was answered: nothing in a file's name or a label is taken for markup."""

from io import StringIO

from rich.console import Console
from rich.table import Table

from app.tables import calibration_table, classes_table, results_table


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
    classes = [{"label": 0, "images": 7, "threshold": None, "achieved_fpr": 0.25}]
    part = {"detector": "spc", "alpha": 0.005, "achieved_fpr": 0.004, "achieved_fpr_interval": [0.001, 0.01]}
    part |= {"saturation": 0.99, "power": "none: so", "classes": classes}
    text = printed(calibration_table({"detectors": [part]}))
    assert "0.50%" in text
    assert "0.40% (0.10%–1.00%)" in text
    assert "99.0%" in text
    assert "—, 25.0%" in printed(classes_table({"detectors": [part]}))
