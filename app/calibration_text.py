"""A calibration report, and a comparison of two, as the command line prints them."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from app.evidence import strongest
from app.tables import calibration_table, classes_table, comparison_table

__all__ = ["print_comparison", "print_report"]


SHOWN = 10  # suspects by name; the JSON report has more


def print_report(console: Console, report: Mapping[str, Any]) -> None:
    """What was calibrated, what it buys, what it says about the model, and what to know."""
    labels = "labelled" if report["labelled"] else "unlabelled"
    console.print(
        f"calibration [bold]{report['id']}[/] of {report['model']['name']} {report['model']['version']}: "
        f"{report['images']} {labels} images, false-positive budget {report['alpha']:.2%} "
        f"(at the least {100 * report['smallest_alpha']:.2g}% with so many)"
    )
    if report["benign_accuracy"] is not None:
        console.print(f"The classifier agrees with {report['benign_accuracy']:.2%} of the labels.")
    if report["passes"] is not None:
        full, expected = report["passes"]["full"], report["passes"]["expected"]
        console.print(f"An image costs at most {full:.1f} forward passes ({expected:.1f} when benign).")
    console.print(calibration_table(report), classes_table(report))
    for each in strongest(report["evidence"]):
        console.print(f"[bold]model:[/] {escape(each['sentence'])}")
    for warning in report["warnings"]:
        console.print(f"[yellow]note:[/] {escape(warning)}")
    suspects = (report.get("contamination") or {}).get("suspect_parts") or []
    if suspects:
        more = ", …" if len(suspects) > SHOWN else ""
        console.print(f"[yellow]suspects:[/] {escape(', '.join(suspects[:SHOWN]))}{more}")


def print_comparison(console: Console, found: Mapping[str, Any]) -> None:
    """Two calibrations side by side, then what changes from the first to the second."""
    console.print(comparison_table(found))
    for sentence in found["differences"] or ["there is no difference that the report shows"]:
        console.print(f"• {escape(sentence)}")
    for side in (found["a"], found["b"]):
        if not side["fits"]:
            console.print(f"[yellow]note:[/] {escape(side['misfit'])}")
