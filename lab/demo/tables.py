"""What the demo prints."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from lab.metrics import auroc

__all__ = ["FIXED_THRESHOLDS", "detector_table", "share", "verdict_table"]

Results = Sequence[dict[str, Any]]
FIXED_THRESHOLDS = {"psc": 0.9, "spc": 0.5}  # the papers' own T


def share(results: Results, verdict: str) -> float:
    """The share of results with this verdict."""
    return float(np.mean([result["verdict"] == verdict for result in results]))


def scores_of(results: Results, number: int) -> npt.NDArray[np.float64]:
    return np.array([result["detections"][number]["score"] for result in results])


def both(
    triggered: Sequence[bool] | npt.NDArray[np.bool_], benign: Sequence[bool] | npt.NDArray[np.bool_]
) -> str:
    return f"{np.mean(triggered):.1%} of triggered, {np.mean(benign):.1%} of benign"


def detector_table(report: dict[str, Any], benign: Results, triggered: Results) -> Table:
    """One line per detector, from exact scores: what it measured on this model, and what it is worth."""
    table = Table(title="What each detector measured on this model")
    for heading in ("detector", "AUROC", "stopped at this budget", "stopped at the paper's fixed T", "power"):
        table.add_column(heading)
    for number, part in enumerate(report["detectors"]):
        good, bad = scores_of(benign, number), scores_of(triggered, number)
        fixed = FIXED_THRESHOLDS.get(part["detector"])
        flagged = [
            [r["detections"][number]["suspicious"] for r in results] for results in (benign, triggered)
        ]
        table.add_row(
            part["detector"].upper(),
            f"{auroc(good, bad):.3f}",
            both(flagged[1], flagged[0]),
            "—" if fixed is None else f"T = {fixed}: {both(bad > fixed, good > fixed)}",
            part["power"],
        )
    return table


def verdict_table(benign: Results, triggered: Results) -> Table:
    """Accepted and rejected, benign and triggered."""
    table = Table(title="What the firewall did")
    for heading in ("images", "sent", "accepted", "rejected"):
        table.add_column(heading, justify="left" if heading == "images" else "right")
    for name, results in (("benign", benign), ("triggered", triggered)):
        counts = [sum(r["verdict"] == verdict for r in results) for verdict in ("accepted", "rejected")]
        table.add_row(name, str(len(results)), *[f"{n} ({n / len(results):.1%})" for n in counts])
    return table
