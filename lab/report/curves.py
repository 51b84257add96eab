"""Curves with bands, points in a plane and lines over settings, as SVG that stands on its own. Pure."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from lab.metrics import Floats
from lab.report.extras import Ablated, Contrast, Curve, Plane
from lab.report.plots import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, drawing, grid_across, grid_down, text

__all__ = ["contrast", "plane", "settings"]

MOST_TICKS = 13
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
AUROC, TPR, FPR = COLOURS[:3]
MEASURES = (("AUROC", "auroc", AUROC), ("TPR at 5 %", "tpr", TPR), ("FPR at 5 %", "fpr", FPR))
FIXED = (("TPR at T", "tpr_fixed", TPR), ("FPR at T", "fpr_fixed", FPR))


def contrast(curves: Contrast, title: str, unit: str) -> Markup:
    """Mean confidence of benign and of poisoned images over `unit`, each with the band of its middle half."""
    at = np.array(curves.benign.at, dtype=np.float64)
    places = _spread(at)
    step = -(-len(at) // MOST_TICKS)
    marks = [grid_across(value, BOTTOM) for value in SHARES]
    marks += [
        grid_down(x, f"{value:g}", BOTTOM) for x, value in list(zip(places, at.tolist(), strict=True))[::step]
    ]
    for kind, curve in (("benign", curves.benign), ("poisoned", curves.poisoned)):
        if curve is not None:
            marks += _banded(curve, places, kind)
    marks += [
        text((LEFT + RIGHT) / 2, BOTTOM + 40, unit, "middle"),
        text(LEFT - 44, TOP - 12, "confidence in the label of the unchanged image", "start"),
    ]
    return drawing(HEIGHT, title, marks)


def _spread(at: Floats) -> list[float]:
    """Linear positions along x."""
    width = float(at.max() - at.min()) or 1.0
    return [LEFT + (RIGHT - LEFT) * float(value - at.min()) / width for value in at]


def _height(rate: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * min(1.0, max(0.0, rate))


def _banded(curve: Curve, places: Sequence[float], kind: str) -> list[Markup]:
    upper = [f"{x:.1f},{_height(y):.1f}" for x, y in zip(places, curve.high, strict=False)]
    lower = [f"{x:.1f},{_height(y):.1f}" for x, y in zip(places, curve.low, strict=False)]
    line = [f"{x:.1f},{_height(y):.1f}" for x, y in zip(places, curve.mean, strict=False)]
    band = '<polygon class="band {}" points="{}"/>'
    mean = '<polyline class="line {}" points="{}"><title>{}: mean</title></polyline>'
    return [
        Markup(band).format(kind, " ".join([*upper, *reversed(lower)])),
        Markup(mean).format(kind, " ".join(line), kind),
    ]


def plane(found: Plane, target: int | None) -> Markup:
    """Images in the plane of most variance: benign, benign with the target label, poisoned."""
    benign, poisoned = np.array(found.benign).reshape(-1, 2), np.array(found.poisoned).reshape(-1, 2)
    labels = np.array(found.benign_labels)
    aimed = labels == target if target is not None else np.zeros(len(labels), dtype=bool)
    groups = (("benign", benign[~aimed]), ("aimed", benign[aimed]), ("poisoned", poisoned))
    both = np.vstack([benign, poisoned])
    low, size = both.min(0), np.where(np.ptp(both, 0) > 0, np.ptp(both, 0), 1.0)
    marks = []
    for kind, points in groups:
        scaled = (points - low) / size
        marks += [
            Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                kind, LEFT + (RIGHT - LEFT) * x, BOTTOM - (BOTTOM - TOP) * y
            )
            for x, y in scaled.tolist()
        ]
    marks += [
        Markup('<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(LEFT, RIGHT, BOTTOM + 8),
        text((LEFT + RIGHT) / 2, BOTTOM + 28, "first principal component", "middle"),
        text(LEFT - 44, TOP - 12, "second principal component", "start"),
    ]
    return drawing(HEIGHT, "Images as the last layer sees them, in two dimensions", marks)


def settings(rows: Sequence[Ablated]) -> Markup:
    """The rates of one detector over the values of one setting; the paper's value is marked."""
    measures = MEASURES if any(row.tpr is not None for row in rows) else FIXED
    places = np.linspace(LEFT + 26, RIGHT - 26, len(rows)).tolist()
    marks = [grid_across(value, BOTTOM) for value in SHARES]
    for row, x in zip(rows, places, strict=True):
        if row.usual:
            usual = '<line class="usual" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            marks.append(Markup(usual).format(x, TOP, BOTTOM))
        marks.append(text(x, BOTTOM + 18, _short(row.value), "middle"))
    for says, name, colour in measures:
        marks += _line(rows, places, name, says, colour)
    marks += [
        text((LEFT + RIGHT) / 2, BOTTOM + 40, f"{rows[0].parameter} of {rows[0].detector}", "middle"),
        text(LEFT - 44, TOP - 12, ", ".join(says for says, _, _ in measures), "start"),
    ]
    return drawing(HEIGHT, f"{rows[0].detector}: what {rows[0].parameter} is worth", marks)


def _line(
    rows: Sequence[Ablated], places: Sequence[float], name: str, says: str, colour: str
) -> list[Markup]:
    values = [(x, getattr(row, name)) for row, x in zip(rows, places, strict=True)]
    known = [(x, _height(value)) for x, value in values if value is not None]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in known)
    line = '<polyline class="curve" points="{}" stroke="{}"><title>{}</title></polyline>'
    dots = [
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"/>').format(x, y, colour) for x, y in known
    ]
    return [Markup(line).format(path, colour, says), *dots]


def _short(value: str) -> str:
    """A long scale set by its ends."""
    parts = value.strip("{}").split(", ")
    if len(parts) > 2:
        return f"{{{parts[0]}, …, {parts[-1]}}}"
    return value.split(" (")[0]
