"""ROC curves and score histograms as SVG that stands on its own. Pure."""

from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from lab.metrics import Floats
from lab.report.results import Scores

__all__ = [
    "BOTTOM", "COLOURS", "HEIGHT", "LEFT", "RIGHT", "TOP", "drawing", "filled", "grid_across", "grid_down",
    "histogram", "roc", "roc_points", "text",
]  # fmt: skip

COLOURS = ("#2f6fb3", "#d1602a", "#3a9a5b", "#a54bb0", "#b8962e", "#c8384a", "#3aa3a8", "#7a6a5d", "#6f7fd8")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 472, 320, 52, 26, 446, 270
SMALL_HEIGHT, SMALL_BOTTOM = 190, 146
SHARES = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
BINS = 40
MOST_POINTS = 300
FINEST = 0.01  # of FPR, between two points that are drawn
WIDE = 20.0  # scores beyond this are drawn on a logarithmic axis


def roc_points(benign: Floats, poisoned: Floats) -> Floats:
    """(t + 1, 2) ascending FPR and TPR of "score > threshold", for every threshold among the scores."""
    thresholds = np.unique(np.concatenate([benign, poisoned]))[::-1]
    rates = [1 - np.searchsorted(np.sort(s), thresholds, side="right") / len(s) for s in (benign, poisoned)]
    return np.vstack([np.stack(rates, 1), [1.0, 1.0]])


def filled(points: Floats) -> Floats:
    """`points` (t, 2) and more on the lines between them: on a root scale a line of tied scores is bent, and
    drawn straight it would look better than chance."""
    steps = np.maximum(1, np.ceil(np.abs(np.diff(points[:, 0])) / FINEST)).astype(int)
    at = np.concatenate([n + np.arange(count) / count for n, count in enumerate(steps)] + [[len(steps)]])
    return np.stack([np.interp(at, np.arange(len(points)), column) for column in points.T], 1)


def roc(scores: Mapping[str, Scores]) -> Markup:
    """A curve per detector, the n-th in the n-th of `COLOURS`; FPR on a root scale, so that small budgets can
    be seen."""
    chance = np.linspace(0, 1, 60)
    curves = [_curve(np.stack([chance, chance], 1), "chance", "none", "by chance")]
    for number, (name, pair) in enumerate(scores.items()):
        points = roc_points(*pair)
        if len(points) > MOST_POINTS:
            points = points[np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))]
        curves.append(_curve(filled(points), "curve", COLOURS[number % len(COLOURS)], name))
    marks = [
        *[grid_across(value, BOTTOM) for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
        *[grid_down(_x(value), f"{value:.0%}", BOTTOM) for value in SHARES],
        *curves,
        text((LEFT + RIGHT) / 2, BOTTOM + 40, "benign images rejected (FPR, root scale)", "middle"),
        text(LEFT - 44, TOP - 12, "poisoned images rejected (TPR)", "start"),
    ]
    return drawing(HEIGHT, "ROC curves: TPR over FPR, one curve per detector", marks)


def histogram(name: str, benign: Floats, poisoned: Floats) -> Markup:
    """Shares of benign and poisoned images by score, in the same bins."""
    both = np.concatenate([benign, poisoned])
    wide = bool(both.min() >= 0 and both.max() > WIDE)
    moved = np.log1p(both) if wide else both
    low, high = float(moved.min()), float(moved.max())
    if high <= low:  # one score for all stands in the middle
        low, high = low - 0.5, high + 0.5
    counts = [
        np.histogram(part, BINS, (low, high))[0] / len(part)
        for part in (moved[: len(benign)], moved[len(benign) :])
    ]
    top = max(float(each.max()) for each in counts)
    bars = [_bars(c, top, kind) for c, kind in zip(counts, ("benign", "poisoned"), strict=True)]
    places = np.linspace(low, high, 5)
    values = np.expm1(places) if wide else places
    steps = np.linspace(LEFT, RIGHT, 5)
    axis = [grid_down(x, f"{v:.3g}", SMALL_BOTTOM) for x, v in zip(steps, values, strict=True)]
    label = f"score of {name}" + (" (logarithmic)" if wide else "")
    marks = [*axis, *bars, text((LEFT + RIGHT) / 2, SMALL_BOTTOM + 36, label, "middle")]
    return drawing(SMALL_HEIGHT, f"Scores of benign and of poisoned images under {name}", marks)


def _bars(shares: Floats, top: float, kind: str) -> Markup:
    """Heights on a root scale: a tail of few images can be seen."""
    step = (RIGHT - LEFT) / BINS
    heights = np.sqrt(shares / top) * (SMALL_BOTTOM - TOP)
    return Markup("").join(
        Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            kind, LEFT + n * step, SMALL_BOTTOM - height, step - 0.5, height
        )
        for n, height in enumerate(heights)
        if height > 0
    )


def _x(rate: float) -> float:
    return LEFT + (RIGHT - LEFT) * float(np.sqrt(rate))


def _curve(points: Floats, kind: str, colour: str, says: str) -> Markup:
    """Points (t, 2) of FPR and TPR; `none` leaves the colour to the style."""
    path = " ".join(f"{_x(x):.1f},{BOTTOM - (BOTTOM - TOP) * y:.1f}" for x, y in points.tolist())
    stroke = Markup("") if colour == "none" else Markup(' stroke="{}"').format(colour)
    line = '<polyline class="{}" points="{}"{}><title>{}</title></polyline>'
    return Markup(line).format(kind, path, stroke, says)


def grid_across(value: float, bottom: float) -> Markup:
    y = bottom - (bottom - TOP) * value
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, RIGHT, y, y)
    return line + text(LEFT - 6, y + 4, f"{value:.0%}", "end")


def grid_down(x: float, says: str, bottom: float) -> Markup:
    line = Markup('<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(x, x, TOP, bottom)
    return line + text(x, bottom + 18, says, "middle")


def text(x: float, y: float, says: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, says)


def drawing(height: int, says: str, marks: list[Markup]) -> Markup:
    inside = Markup("").join(marks)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, says, inside
    )
