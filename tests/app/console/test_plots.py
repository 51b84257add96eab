"""The console's plots: what is drawn where."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from app.console.plots import LEFT, RIGHT, distribution_plot, odds_plot, rate_plot, traffic_plot
from app.console.probing import Answer, Question
from app.policy import Verdict
from app.storage.decisions import Traffic
from app.storage.what_if import Distribution

SINCE = datetime(2026, 3, 4, 5, 0, tzinfo=UTC)
UNTIL, STEP = SINCE + timedelta(hours=1), timedelta(minutes=1)
STEPS = [
    Traffic(SINCE, {Verdict.ACCEPTED: 6, Verdict.REJECTED: 2}),
    Traffic(SINCE + timedelta(minutes=30), {Verdict.FLAGGED: 4}),
]


def drawn(plot: Markup, cls: str) -> list[ET.Element]:
    return [each for each in ET.fromstring(plot).iter() if cls in each.get("class", "").split()]


def number(element: ET.Element, name: str) -> float:
    return float(element.attrib[name])


def test_traffic_is_stacked_by_verdict_at_its_time() -> None:
    plot = traffic_plot(STEPS, SINCE, UNTIL, STEP)
    (accepted,), (rejected,), (flagged,) = (drawn(plot, v) for v in ("accepted", "rejected", "flagged"))
    assert number(accepted, "x") == number(rejected, "x") == LEFT
    assert number(flagged, "x") == pytest.approx((LEFT + RIGHT) / 2, abs=0.01)
    heights = [number(each, "height") for each in (accepted, rejected, flagged)]
    assert heights == pytest.approx([heights[1] * 3, heights[1], heights[1] * 2], abs=0.05)
    assert number(accepted, "y") + heights[0] == pytest.approx(number(rejected, "y"), abs=0.05)
    assert accepted.find("title").text == "2026-03-04 05:00: 6 accepted"  # type: ignore[union-attr]


def test_no_traffic_is_an_empty_plot() -> None:
    assert drawn(traffic_plot([], SINCE, UNTIL, STEP), "verdict") == []
    assert drawn(rate_plot([], SINCE, UNTIL, STEP, None), "rate") == []


def test_rates_lie_beside_the_budget() -> None:
    plot = rate_plot(STEPS, SINCE, UNTIL, STEP, 0.25)
    first, second = drawn(plot, "rate")
    (budget,) = drawn(plot, "budget")
    assert number(first, "cy") == number(budget, "y1")  # 2 of 8 at a budget of a quarter
    assert number(second, "cy") < number(first, "cy")


def test_scores_cleared_go_up_and_suspicious_ones_down() -> None:
    found = Distribution([0, 1, 2], [9, 1], [0, 4], bounds=2, threshold=1.5)
    plot = distribution_plot(found, [1.5, 7.0], "psc<b>")
    first, second = drawn(plot, "accepted")
    (below,) = drawn(plot, "rejected")
    assert number(first, "height") == pytest.approx(3 * number(second, "height"), abs=0.05)  # square roots
    assert number(second, "y") + number(second, "height") == pytest.approx(number(below, "y"), abs=0.01)
    (tick,) = drawn(plot, "threshold")  # 7 is not on the axis
    assert number(tick, "x1") == pytest.approx(LEFT + 0.75 * (RIGHT - LEFT))
    assert "<b>" not in plot


def test_answers_outside_of_what_is_usual_stand_out() -> None:
    def answer(name: str, odds: float) -> Answer:
        return Answer(Question("profile", name, "", lambda images: images), 0, odds, (5.0, 1.0))

    plain = Answer(None, 0, 6.0, None)
    plot = odds_plot([answer("blur", 5.5), answer("flip", -3.0)], plain)
    assert [number(each, "cy") for each in drawn(plot, "answer")] == [21, 47, 73]
    (unusual,) = drawn(plot, "unusual")
    assert number(unusual, "cy") == 73
    assert len(drawn(plot, "band")) == 2  # nothing is known of the image itself
