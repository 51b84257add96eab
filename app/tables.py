"""What the command line prints: the gateway's answers as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

__all__ = ["calibration_table", "classes_table", "facts_table", "results_table"]

COLOURS = {"accepted": "green", "rejected": "red", "flagged": "yellow"}


def results_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """One line per image: (file, result of /classify)."""
    table = Table("image", "verdict", "prediction", "detectors (score, threshold, p)")
    for file, result in rows:
        if result.get("error"):
            table.add_row(escape(file), "[magenta]unreadable", "", escape(result["error"]["detail"]))
            continue
        verdict = result["verdict"]
        table.add_row(
            escape(file), f"[{COLOURS[verdict]}]{verdict}", _prediction(result), _detections(result)
        )
    return table


def _prediction(result: Mapping[str, Any]) -> str:
    prediction = result["prediction"]
    if prediction is None:
        return "withheld"
    confidence = prediction["confidence"]
    name = escape(prediction["name"] or str(prediction["label"]))
    return name if confidence is None else f"{name} ({confidence:.3f})"


def _detections(result: Mapping[str, Any]) -> str:
    return "\n".join(_detection(found) for found in result["detections"])


def _detection(found: Mapping[str, Any]) -> str:
    score, threshold, p = (_number(found[name], "{:.3f}") for name in ("score", "threshold", "p_value"))
    bound = "" if found["exact"] else " (bound)"
    colour = "[red]" if found["suspicious"] else ""
    return f"{colour}{found['detector']} {score}{bound} / {threshold}, p {p}"


def _number(value: float | None, shape: str = "{:.4f}") -> str:
    return "—" if value is None else shape.format(value)


def calibration_table(report: Mapping[str, Any]) -> Table:
    """One line per detector of a calibration report."""
    table = Table("detector", "budget", "achieved FPR (95 % interval)", "saturated", "power")
    for part in report["detectors"]:
        low, high = part["achieved_fpr_interval"]
        table.add_row(
            part["detector"],
            f"{part['alpha']:.2%}",
            f"{part['achieved_fpr']:.2%} ({low:.2%}–{high:.2%})",
            f"{part['saturation']:.1%}",
            part["power"],
        )
    return table


def classes_table(report: Mapping[str, Any]) -> Table:
    """One line per predicted class, with every detector's threshold and false-positive rate."""
    parts = report["detectors"]
    table = Table("predicted class", "images", *[f"{p['detector']}: threshold, FPR" for p in parts])
    for rows in zip(*[part["classes"] for part in parts], strict=True):
        cells = [f"{_number(row['threshold'])}, {_number(row['achieved_fpr'], '{:.1%}')}" for row in rows]
        table.add_row(str(rows[0]["label"]), str(rows[0]["images"]), *cells)
    return table


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Facts about a bundle, as (what, value)."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is there to be copied
    for what, value in facts:
        table.add_row(what, value)
    return table
