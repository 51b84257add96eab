"""How many replicas: against queues that can be computed by hand."""

import pytest

from bench.plan.batcher import BATCH_DELAY, BATCH_ROWS
from bench.plan.search import Aim, least, plan, serves
from bench.plan.service import Front, ServiceTimes
from bench.plan.units import PlanError

LINE = ServiceTimes("psc", 6, ((1.0, 0.010), (32.0, 0.072)))  # 8 ms and 2 ms an image
"""At most 32 / 0.072 = 444 images a second in batches as measured, and 500 in endless ones."""


def test_no_fewer_replicas_than_the_load_takes() -> None:
    """Ten milliseconds each, whatever the batch: 100 images a second a replica: 500/s take more than 5."""
    service = ServiceTimes("x", 1, ((1, 0.010), (64, 0.640)))
    assert least(service, Aim(500, 0.1)) == 5
    found = plan(service, Aim(500, 0.1))
    assert found.fleet.replicas > 5
    assert found.outcome.percentile(0.99) <= 0.1


def test_one_replica_less_does_not_do() -> None:
    aim = Aim(1500, 0.05)
    found = plan(LINE, aim)
    assert found.outcome.percentile(0.99) <= 0.05
    assert serves(LINE, aim, found.fleet.replicas - 1) is None


def test_the_gateways_defaults_are_kept_where_they_need_no_more_replicas() -> None:
    found = plan(LINE, Aim(50, 0.2))
    assert found.fleet.replicas == 1
    assert (found.fleet.limits.batch_rows, found.fleet.limits.batch_delay) == (BATCH_ROWS, BATCH_DELAY)


def test_nobody_queues_who_could_only_be_late() -> None:
    """100 images a second for 0.1 s are 10 images, of 3 rows each, or one batch if that is more."""
    service = ServiceTimes("x", 3, ((1, 0.010), (512, 5.120)))
    limits = plan(service, Aim(20, 0.1)).fleet.limits
    assert limits.queue_rows == max(30, limits.batch_rows)


@pytest.mark.parametrize("p99", [0.005, 0.0099])
def test_no_number_of_replicas_makes_one_image_faster(p99: float) -> None:
    with pytest.raises(PlanError, match=r"one request alone takes 10 ms.*whatever the number of replicas"):
        plan(LINE, Aim(10, p99))


def test_http_counts_as_well() -> None:
    slow = ServiceTimes("x", 1, LINE.points, front=Front(0.001, 0.02))
    with pytest.raises(PlanError, match="alone takes 31 ms"):
        plan(slow, Aim(10, 0.03))


def test_a_rate_beyond_any_fleet_is_said() -> None:
    with pytest.raises(PlanError, match="more than 1000 replicas"):
        plan(LINE, Aim(1e6, 0.1))


def test_a_tail_that_is_always_there_is_no_matter_of_replicas() -> None:
    spread = tuple([1.0] * 95 + [9.0] * 5)
    with pytest.raises(PlanError, match="whatever the number of replicas"):
        plan(ServiceTimes("x", 1, ((1, 0.01),), spread), Aim(10, 0.05))
