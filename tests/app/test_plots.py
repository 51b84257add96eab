"""The plots show the figures: marks are counted and their places computed by hand."""

import re
from typing import Any

import pytest

from app.plots import HEAD, LEFT, MOST_ROWS, RIGHT, collapse_plot, confidence_plot, rates_plot, remarkable
from app.plots import scores_plot as scores


def row(label: int, **changes: Any) -> dict[str, Any]:
    plain = {
        "label": label, "name": None, "images": 10, "threshold": 0.5, "maximum": 1.0, "achieved_fpr": 0.01,
        "achieved_fpr_interval": [0.0, 0.04], "saturation": 0.25, "histogram": [5, 0, 0, 5],
    }  # fmt: skip
    return {**plain, **changes}


def part(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    plain = {
        "detector": "psc", "alpha": 0.01, "thresholds": "conformal", "achieved_fpr": 0.01, "saturation": 0.1,
        "achieved_fpr_interval": [0.0, 0.04], "blind_labels": [],
        "histogram": {"low": 0.0, "high": 1.0, "beyond": 0, "counts": [15, 0, 0, 5]},
    }  # fmt: skip
    return {**plain, "classes": list(rows), **changes}


def places(drawing: str, tag: str, name: str, attribute: str) -> list[float]:
    """The values of `attribute` of all elements `tag` of the class `name`, in order."""
    found = re.findall(rf'<{tag}[^>]*class="{name}"[^>]*>', drawing)
    return [float(re.search(rf'\b{attribute}="([^"]+)"', each)[1]) for each in found]  # type: ignore[index]


def test_thresholds_stand_where_they_are() -> None:
    drawing = scores(part(row(0), row(1, threshold=0.25)))
    width = RIGHT - LEFT
    assert places(drawing, "line", "threshold", "x1") == [LEFT + 0.5 * width, LEFT + 0.25 * width]
    assert places(drawing, "rect", "zone", "x") == [LEFT + 0.5 * width, LEFT + 0.25 * width]
    assert places(drawing, "rect", "zone", "width")[1] == pytest.approx(0.75 * width)


def test_bars_are_as_high_as_their_root() -> None:
    """15 and 5 of 20: the largest fills the height, the other √(5/15) of it."""
    first, second = places(scores(part(row(0, histogram=None))), "rect", "bar", "height")
    assert second / first == pytest.approx((5 / 15) ** 0.5, abs=1e-3)


def test_where_nothing_can_be_rejected_nothing_is_red() -> None:
    drawing = scores(part(row(0, threshold=1.0), row(1), blind_labels=[0]))
    assert len(places(drawing, "rect", "zone", "x")) == 1
    assert drawing.count(">blind<") == 1


def test_a_class_without_images_says_so() -> None:
    empty = row(1, images=0, achieved_fpr=None, achieved_fpr_interval=None, saturation=None, histogram=None)
    for drawing in (scores(part(row(0), empty)), rates_plot(part(row(0), empty))):
        assert drawing.count("no benign image<") == 1
    assert len(places(rates_plot(part(row(0), empty)), "circle", "dot", "cx")) == 2  # all, and one class


def test_the_budget_stands_beside_the_rates() -> None:
    """Square-root scale up to 4 %: 1 % stands at the half."""
    drawing = rates_plot(part(row(0)))
    (budget,) = places(drawing, "line", "budget", "x1")
    assert places(drawing, "circle", "dot", "cx") == [budget, budget]
    low, high = places(drawing, "line", "whisker", "x1")[0], places(drawing, "line", "whisker", "x2")[0]
    assert budget - low == pytest.approx(high - budget)
    assert "budget" not in rates_plot(part(row(0), thresholds="fixed"))


def test_of_many_classes_the_remarkable_ones_are_drawn() -> None:
    rows = [row(n, achieved_fpr=0.001) for n in range(1000)]
    rows[700]["achieved_fpr"], rows[900]["threshold"] = 0.2, 1.0
    many = part(*rows, blind_labels=[900])
    chosen = [each["label"] for each in remarkable(many)]
    assert len(chosen) == MOST_ROWS
    assert chosen == sorted(chosen)
    assert {700, 900} <= set(chosen)
    assert len(scores(many)) < 40_000
    assert f'viewBox="0 0 460 {HEAD + 20 * MOST_ROWS + 40:g}"' in scores(many)


def test_confidence_and_collapse_by_depth() -> None:
    confidence = [{"layers": i, "q05": 0.0, "median": 1 - i / 4, "q95": 1.0} for i in (1, 2, 3)]
    collapse = [{"strength": i, "share": i / 4} for i in (1, 2, 3)]
    behaviour = {"confidence": confidence, "collapse": collapse}
    drawing = confidence_plot({"behaviour": behaviour, "fit": {"k": 2, "n": 2}})
    assert "used: k = 2, n = 2" in drawing
    lines = re.findall(r'<polyline points="([^"]+)" class="(\w+)"', drawing)
    assert [name for _, name in lines] == ["median", "sink"]
    (_, falling), (_, rising) = [pair.split(",") for pair in (lines[0][0].split()[0], lines[1][0].split()[2])]
    assert falling == rising  # both are 0.75


def test_a_collapse_stands_beside_other_models() -> None:
    entry = {
        "by": "scaling", "strength": 3.0, "label": 2, "name": "<b>", "share": 0.5, "plain_share": 0.1,
        "benign_models": [0.25, 1.0], "backdoored_models": [0.5], "sentence": "so",
    }  # fmt: skip
    drawing = collapse_plot([entry])
    start = places(drawing, "rect", "bar", "x")[0]
    width = places(drawing, "rect", "bar", "width")[0]
    assert places(drawing, "circle", "benign", "cx") == pytest.approx([start + width / 2, start + 2 * width])
    assert drawing.count('class="backdoored"') == 1
    assert "pixels ×3" in drawing
    assert "<b>" not in drawing
