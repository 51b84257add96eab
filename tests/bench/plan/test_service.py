"""Service times between and beyond what was measured."""

import json

import pytest

from bench.plan.service import Front, ServiceTimes
from bench.plan.units import PlanError


def test_seconds_lie_on_lines_through_what_was_measured() -> None:
    service = ServiceTimes("x", 6, ((1, 0.010), (4, 0.016), (8, 0.040)))
    assert service.seconds(1) == 0.010
    assert service.seconds(2) == pytest.approx(0.012)
    assert service.seconds(6) == pytest.approx(0.028)
    assert service.seconds(15) == pytest.approx(0.010 + 14 * 0.030 / 7)  # the whole line, not its last piece


def test_one_measured_size_is_taken_in_proportion() -> None:
    assert ServiceTimes("x", 1, ((4, 0.02),)).seconds(8) == pytest.approx(0.04)
    assert ServiceTimes("x", 1, ((4, 0.02),)).seconds(1) == pytest.approx(0.02)


def test_capacity_is_that_of_the_best_batch_or_of_the_event_loop() -> None:
    points = ((1.0, 0.010), (4.0, 0.020), (8.0, 0.080))
    assert ServiceTimes("x", 6, points).capacity(1) == pytest.approx(100)
    assert ServiceTimes("x", 6, points).capacity(8) == pytest.approx(200)  # batches of 4
    assert ServiceTimes("x", 6, points, front=Front(loop=0.008)).capacity(8) == pytest.approx(125)


def test_it_never_does_more_than_it_was_seen_to_do() -> None:
    points = ((1.0, 0.010), (8.0, 0.040))
    service = ServiceTimes("x", 6, points, most=160.0)
    assert service.seconds(1) == 0.010  # 100 a second
    assert service.seconds(8) == pytest.approx(0.050)  # and not 0.040, 200 a second
    assert service.seconds(32) == pytest.approx(0.2)
    assert service.capacity(64) == pytest.approx(160)
    assert ServiceTimes.from_json(json.loads(json.dumps(service.to_json()))) == service
    older = {name: value for name, value in service.to_json().items() if name != "most"}
    assert ServiceTimes.from_json(older) == ServiceTimes("x", 6, points)
    with pytest.raises(PlanError, match="nothing was answered"):
        ServiceTimes("x", 6, points, most=0.0)


def test_alone_is_the_slow_end_of_one_image_and_http() -> None:
    spread = tuple([1.0] * 98 + [3.0, 3.0])
    service = ServiceTimes("x", 6, ((1, 0.010),), spread, Front(0.001, 0.002))
    assert service.alone(0.99) == pytest.approx(0.033)
    assert service.alone(0.50) == pytest.approx(0.013)


def test_json_gives_the_same_back() -> None:
    service = ServiceTimes("psc", 6, ((1.0, 0.01), (7.5, 0.02)), (0.9, 1.1), Front(0.001, 0.0005))
    assert ServiceTimes.from_json(json.loads(json.dumps(service.to_json()))) == service


@pytest.mark.parametrize("points", [(), ((2, 0.1), (1, 0.2)), ((1, 0.1), (1, 0.2)), ((1, 0.0),), ((0, 0.1),)])
def test_what_cannot_have_been_measured_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(PlanError):
        ServiceTimes("x", 1, points)
