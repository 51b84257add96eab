"""What is written for a rate and a time, and what is told of nonsense."""

import pytest

from bench.plan.units import PlanError, duration, rate


@pytest.mark.parametrize(
    ("text", "value"), [("2000/s", 2000.0), ("900/min", 15.0), ("7.2e6/h", 2000.0), (" 0.5 / s ", 0.5)]
)
def test_a_rate_is_images_a_second(text: str, value: float) -> None:
    assert rate(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("100ms", 0.1), ("0.1s", 0.1), ("500us", 0.0005), ("2 s", 2.0)])
def test_a_duration_is_seconds(text: str, value: float) -> None:
    assert duration(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["2000", "2000/day", "-5/s", "0/s", "fast", "", "1e999/s", "100ms"])
def test_nonsense_is_no_rate(text: str) -> None:
    with pytest.raises(PlanError, match="like 2000/s"):
        rate(text)


@pytest.mark.parametrize("text", ["100", "100 m", "-1ms", "0s", "soon", "", "2000/s"])
def test_nonsense_is_no_duration(text: str) -> None:
    with pytest.raises(PlanError, match="like 100ms"):
        duration(text)
