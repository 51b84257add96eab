"""The plots of a calibration report, as SVG: what a detector's figures look like. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.svg import Scale, drawing, element, linear, root, share, shorten, spaced, ticks

__all__ = ["MOST_ROWS", "collapse_plot", "confidence_plot", "rates_plot", "remarkable", "scores_plot"]

Figures = Mapping[str, Any]
MOST_ROWS = 24
WIDTH, LEFT, RIGHT = 460.0, 100.0, 416.0  # of a plot, and of the area right of its labels
HEAD, ROW, FOOT = 128.0, 20.0, 40.0  # pixels above the rows, per row, below them
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def remarkable(part: Figures) -> list[Figures]:
    """The classes that a plot shows: all, or where they are many, those that are blind, most often rejected
    or most saturated."""
    rows: list[Figures] = list(part["classes"])
    if len(rows) <= MOST_ROWS:
        return rows
    blind = set(part["blind_labels"])

    def rank(row: Figures) -> tuple[bool, float, float, int]:
        rate, saturation = row["achieved_fpr"] or 0.0, row["saturation"] or 0.0
        return row["label"] not in blind or not row["images"], -rate, -saturation, row["label"]

    return sorted(sorted(rows, key=rank)[:MOST_ROWS], key=lambda row: int(row["label"]))


def class_name(row: Figures) -> str:
    label, name = str(row["label"]), row.get("name")
    return f"{label} {name}" if name and name != label else label


# --- scores ---------------------------------------------------------------------------------------


def scores_plot(part: Figures) -> Markup:
    """Benign scores of all images, and below them of every predicted class, with what is rejected."""
    rows, bins = remarkable(part), part["histogram"]
    x = linear(bins["low"], bins["high"], LEFT, RIGHT)
    bottom = HEAD + ROW * len(rows)
    marks = [
        _histogram(bins["counts"], HEAD - 26),
        *_marks_below(rows, x),
        *[_strip(row, row["label"] in part["blind_labels"], x, HEAD + ROW * n) for n, row in enumerate(rows)],
        *_score_axis(bins, x, bottom),
    ]
    says = f"Benign scores of {part['detector']}, of all images and per predicted class, with its thresholds"
    return drawing(WIDTH, bottom + FOOT, says, *marks)


def _histogram(counts: Sequence[int], base: float) -> Markup:
    """Bars on a square-root scale, so that the tail, where thresholds lie, can be seen."""
    total, width = sum(counts), (RIGHT - LEFT) / len(counts)
    y = root(max(counts) / total, base, 16.0)
    lines = [
        _gridline(value, y)
        for value in spaced(SHARES, y, 16)
        if value <= max(counts) / total and y(value) < base - 20
    ]
    bars = [
        element(
            "rect", element("title", f"{count} of {total} benign images"),
            x=LEFT + n * width + 0.5, y=y(count / total), width=width - 1, height=base - y(count / total),
            class_="bar",
        )
        for n, count in enumerate(counts) if count
    ]  # fmt: skip
    axis = element("line", x1=LEFT, x2=RIGHT, y1=base, y2=base, class_="axis")
    label = element("text", "all images", x=LEFT - 8, y=base - 4, text_anchor="end", class_="label strong")
    return element("g", *lines, *bars, axis, label)


def _gridline(value: float, y: Scale) -> Markup:
    line = element("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="grid")
    return line + element("text", share(value), x=LEFT - 8, y=y(value) + 4, text_anchor="end", class_="tick")


def _marks_below(rows: Sequence[Figures], x: Scale) -> list[Markup]:
    """Every class's threshold as a tick under the histogram."""
    base = HEAD - 26
    found = [row["threshold"] for row in rows if row["threshold"] is not None]
    return [
        element("line", x1=x(value), x2=x(value), y1=base, y2=base + 9, class_="threshold thin")
        for value in found
    ]


def _strip(row: Figures, blind: bool, x: Scale, top: float) -> Markup:
    """One class: darker where more of its benign images lie, a tick at its threshold, red beyond it."""
    middle, height = top + ROW / 2, ROW - 6
    name = element(
        "text", element("title", class_name(row)), shorten(class_name(row)),
        x=LEFT - 8, y=middle + 4, text_anchor="end", class_="label",
    )  # fmt: skip
    line = element("line", x1=LEFT, x2=RIGHT, y1=middle, y2=middle, class_="grid")
    parts = [name, line]
    threshold = row["threshold"]
    if threshold is not None and not blind:
        start = x(threshold)
        parts.append(
            element("rect", x=start, y=top + 3, width=max(RIGHT - start, 1.0), height=height, class_="zone")
        )
    parts += _shades(row["histogram"] or [], top + 3, height)
    if not row["images"]:
        parts.append(element("text", "no benign image", x=LEFT + 6, y=middle + 4, class_="note"))
    if blind:
        parts.append(element("text", "blind", x=RIGHT + 8, y=middle + 4, class_="note"))
    if threshold is not None:
        place = min(x(threshold), RIGHT - 1)
        title = element("title", f"threshold {threshold:.4g}")
        parts.append(
            element("line", title, x1=place, x2=place, y1=top + 1, y2=top + ROW - 1, class_="threshold")
        )
    return element("g", *parts)


def _shades(counts: Sequence[int], top: float, height: float) -> list[Markup]:
    most, width = max(counts, default=0), (RIGHT - LEFT) / max(len(counts), 1)
    return [
        element(
            "rect", element("title", f"{count} of {sum(counts)} benign images"),
            x=LEFT + n * width, y=top, width=width, height=height, class_="bar",
            opacity=0.15 + 0.85 * (count / most) ** 0.5,
        )
        for n, count in enumerate(counts) if count
    ]  # fmt: skip


def _score_axis(bins: Figures, x: Scale, bottom: float) -> list[Markup]:
    axis = element("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="axis")
    texts = []
    for value in spaced(ticks(bins["low"], bins["high"]), x, 24):
        more = "+" if bins["beyond"] and x(value) > RIGHT - 6 else ""
        texts.append(
            element(
                "text", f"{value:g}{more}", x=x(value), y=bottom + 15, text_anchor="middle", class_="tick"
            )
        )
    where = element(
        "text", "score: more suspicious →", x=RIGHT, y=bottom + 32, text_anchor="end", class_="tick"
    )
    return [axis, *texts, where]


# --- rates ----------------------------------------------------------------------------------------

BETWEEN, SATURATION = 308.0, 340.0  # the false-positive rates end, the saturations begin


def rates_plot(part: Figures) -> Markup:
    """Achieved false-positive rate with its interval beside the budget, and saturation, per class."""
    rows = remarkable(part)
    largest = max([part["alpha"], part["achieved_fpr_interval"][1], *_upper_ends(rows)])
    x, bottom = root(largest, LEFT, BETWEEN), HEAD + ROW * len(rows)
    total = {**part, "label": "all images", "name": None, "images": 1}
    marks = [
        *_rate_headings(),
        *_rate_axis(x, largest, part, bottom),
        _rate_row(total, x, HEAD - 46, strong=True),
        *[_rate_row(row, x, HEAD + ROW * n) for n, row in enumerate(rows)],
    ]
    says = f"False-positive rate of {part['detector']} with its 95 % interval, and saturation, per class"
    return drawing(WIDTH, bottom + FOOT, says, *marks)


def _upper_ends(rows: Sequence[Figures]) -> list[float]:
    """Where the axis has to reach: intervals of rare classes may leave it."""
    ends = sorted(row["achieved_fpr_interval"][1] for row in rows if row["images"])
    rates = [row["achieved_fpr"] for row in rows if row["images"]]
    return [*rates, ends[round(0.75 * (len(ends) - 1))]] if ends else rates


def _rate_headings() -> list[Markup]:
    return [
        element("text", "benign images rejected", x=LEFT, y=24, class_="heading"),
        element("text", "with 95 % interval", x=LEFT, y=40, class_="tick"),
        element("text", "saturated", x=SATURATION, y=24, class_="heading"),
        element("text", "at the top score", x=SATURATION, y=40, class_="tick"),
    ]


def _rate_axis(x: Scale, largest: float, part: Figures, bottom: float) -> list[Markup]:
    marks = [element("line", x1=LEFT, x2=BETWEEN, y1=bottom, y2=bottom, class_="axis")]
    for value in spaced([v for v in SHARES if v <= largest], x, 40):
        marks += [
            element("line", x1=x(value), x2=x(value), y1=HEAD - 46, y2=bottom, class_="grid"),
            element("text", share(value), x=x(value), y=bottom + 15, text_anchor="middle", class_="tick"),
        ]
    if part["thresholds"] == "conformal":
        budget = x(part["alpha"])
        anchor = "start" if budget < (LEFT + BETWEEN) / 2 else "end"
        marks += [
            element("line", x1=budget, x2=budget, y1=HEAD - 58, y2=bottom, class_="budget"),
            element(
                "text", f"budget {share(part['alpha'])}",
                x=budget, y=HEAD - 62, text_anchor=anchor, class_="budget-name",
            ),
        ]  # fmt: skip
    return marks


def _rate_row(row: Figures, x: Scale, top: float, *, strong: bool = False) -> Markup:
    middle = top + ROW / 2
    name = element(
        "text", element("title", class_name(row)), shorten(class_name(row)),
        x=LEFT - 8, y=middle + 4, text_anchor="end", class_="label strong" if strong else "label",
    )  # fmt: skip
    if not row["images"]:
        return name + element("text", "no benign image", x=LEFT + 4, y=middle + 4, class_="note")
    low, high = row["achieved_fpr_interval"]
    said = f"{share(row['achieved_fpr'])} ({share(low)} to {share(high)})"
    whisker = element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="whisker")
    dot = element(
        "circle", element("title", said),
        cx=x(row["achieved_fpr"]), cy=middle, r=5.0 if strong else 4.0, class_="dot",
    )  # fmt: skip
    return element("g", name, whisker, dot, _saturation(row["saturation"], middle))


def _saturation(value: float, middle: float) -> Markup:
    room = 66.0
    bar = element("rect", x=SATURATION, y=middle - 5, width=room * value, height=10, class_="saturation")
    track = element("rect", x=SATURATION, y=middle - 5, width=room, height=10, class_="track")
    said = element("text", share(value), x=SATURATION + room + 6, y=middle + 4, class_="tick")
    return track + bar + said


# --- the model ------------------------------------------------------------------------------------


def confidence_plot(part: Figures) -> Markup:
    """Benign confidence, and the share that collapses, by the number of amplified layers."""
    points, collapses = part["behaviour"]["confidence"], part["behaviour"]["collapse"]
    top, bottom, left, right = 34.0, 214.0, 44.0, WIDTH - 12
    x = linear(1, max(len(points), 2), left, right - 8)
    y = linear(0, 1, bottom, top)
    half = (x(2) - x(1)) / 2
    k, n = int(part["fit"]["k"]), int(part["fit"]["n"])
    first, last = max(x(k) - half, left), min(x(k + n - 1) + half, right)
    band = [(x(p["layers"]), y(p["q95"])) for p in points] + [
        (x(p["layers"]), y(p["q05"])) for p in reversed(points)
    ]
    marks = [
        element("text", f"used: k = {k}, n = {n}", x=(first + last) / 2, y=top - 8,
                text_anchor="middle" if first > 130 else "start", class_="tick"),
        *[_level(value, y, left, right) for value in QUARTERS],
        element("polygon", points=_points(band), class_="band"),
        element("rect", x=first, y=top, width=last - first, height=bottom - top, class_="used"),
        element("polyline", points=_points([(x(p["layers"]), y(p["median"])) for p in points]),
                class_="median"),
        element("polyline", points=_points([(x(c["strength"]), y(c["share"])) for c in collapses]),
                class_="sink"),
        *_layer_axis(x, len(points), bottom),
    ]  # fmt: skip
    says = "Benign confidence and collapse by the number of amplified BatchNorm layers"
    return drawing(WIDTH, bottom + FOOT, says, *marks)


def _level(value: float, y: Scale, left: float, right: float) -> Markup:
    line = element("line", x1=left, x2=right, y1=y(value), y2=y(value), class_="grid")
    return line + element("text", f"{value:g}", x=left - 8, y=y(value) + 4, text_anchor="end", class_="tick")


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in pairs)


def _layer_axis(x: Scale, layers: int, bottom: float) -> list[Markup]:
    whole = [value for value in ticks(1, layers, 8) if value == int(value)]
    texts = [
        element("text", f"{value:g}", x=x(value), y=bottom + 15, text_anchor="middle", class_="tick")
        for value in whole
    ]
    what = "amplified BatchNorm layers, counted from the last →"
    return [*texts, element("text", what, x=WIDTH - 12, y=bottom + 32, text_anchor="end", class_="tick")]


def collapse_plot(evidence: Sequence[Figures]) -> Markup:
    """How many benign images end in one class, beside what other models show."""
    rows, height, top = list(evidence), 30.0, 12.0
    x, bottom = linear(0, 1, LEFT, RIGHT - 16), top + height * len(rows)
    grid = [
        element("line", x1=x(v), x2=x(v), y1=top, y2=bottom, class_="grid")
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    texts = [
        element("text", share(v), x=x(v), y=bottom + 15, text_anchor="middle", class_="tick")
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    marks = [_collapse_row(row, x, top + height * n, height) for n, row in enumerate(rows)]
    where = element(
        "text", "benign images in the most frequent class", x=RIGHT, y=bottom + 32, text_anchor="end",
        class_="tick",
    )  # fmt: skip
    says = "Collapse of benign predictions into one class, beside reference models"
    return drawing(WIDTH, bottom + FOOT, says, *grid, *marks, *texts, where)


def _collapse_row(row: Figures, x: Scale, top: float, height: float) -> Markup:
    middle = top + height / 2
    by = "amplified" if row["by"] == "amplification" else f"pixels ×{row['strength']:g}"
    end, plain = x(row["share"]), x(row["plain_share"])
    marks = [
        element("text", by, x=LEFT - 8, y=middle + 4, text_anchor="end", class_="label"),
        element(
            "rect", element("title", row["sentence"]),
            x=LEFT, y=middle - 7, width=end - LEFT, height=14, class_="bar",
        ),
        element("line", x1=plain, x2=plain, y1=middle - 9, y2=middle + 9, class_="plain"),
        *[element("circle", cx=x(v), cy=middle, r=4.0, class_="benign") for v in row["benign_models"]],
        *[_diamond(x(v), middle) for v in row["backdoored_models"]],
        element(
            "text", element("title", row["name"] or ""), f"→ {row['label']}",
            x=RIGHT + 2, y=middle + 4, class_="note",
        ),
    ]  # fmt: skip
    return element("g", *marks)


def _diamond(x: float, y: float) -> Markup:
    size = 5.0
    corners = [(x, y - size), (x + size, y), (x, y + size), (x - size, y)]
    return element("polygon", points=_points(corners), class_="backdoored")
