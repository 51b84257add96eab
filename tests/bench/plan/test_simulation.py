"""The simulation against queues whose waiting times are known."""

import math
import random

import pytest

from bench.plan.batcher import Limits
from bench.plan.service import Front, ServiceTimes
from bench.plan.simulation import Fleet, simulate
from tests.bench.plan.test_batcher import simulated

ONE_BY_ONE = Limits(batch_rows=1, batch_delay=0.0, queue_rows=100_000)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_a_queue_of_equal_services_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is ρ·D / (2·(1 − ρ))."""
    fleet = Fleet(ServiceTimes("x", 1, ((1, 0.01),)), ONE_BY_ONE)
    found = simulate(fleet, load / 0.01, requests=60_000)
    assert mean(list(found.latencies)) == pytest.approx(0.01 + load * 0.01 / (2 * (1 - load)), rel=0.05)
    assert found.busy == pytest.approx(load, rel=0.03)
    assert found.images == 1.0
    assert found.refused == 0


def test_services_that_vary_wait_longer_by_the_same_formula() -> None:
    """M/G/1: the mean wait is λ·E[S²] / (2·(1 − ρ)); here S is D/2 or 3D/2."""
    fleet = Fleet(ServiceTimes("x", 1, ((1, 0.01),), (0.5, 1.5)), ONE_BY_ONE)
    found = simulate(fleet, 60.0, requests=60_000)
    expected = 60 * (0.01**2 * (0.25 + 2.25) / 2) / (2 * 0.4)
    assert mean(list(found.latencies)) - 0.01 == pytest.approx(expected, rel=0.06)


def test_the_event_loop_is_a_queue_of_its_own() -> None:
    """M/D/1 at the loop, with a device that takes next to nothing; `aside` is waited for by nobody."""
    service = ServiceTimes("x", 1, ((1, 1e-7),), front=Front(loop=0.01, aside=0.05))
    found = simulate(Fleet(service, ONE_BY_ONE), 60.0, requests=60_000)
    assert mean(list(found.latencies)) == pytest.approx(0.06 + 0.6 * 0.01 / (2 * 0.4), rel=0.03)


def test_four_arrivals_by_hand() -> None:
    """Batches of two, of 10 ms each: the first goes alone, the second and third wait for it."""
    found = simulated([0.001, 0.002, 0.003, 0.004], Limits(2, 0.0, 100), 1, lambda _: 0.010)
    assert [batch for _, batch in found] == [[0], [1, 2], [3]]
    assert [at for at, _ in found] == pytest.approx([0.001, 0.011, 0.021])


def test_a_bounded_queue_refuses_as_erlang_says() -> None:
    """M/M/1/2 at ρ = 1, one at the device and one waiting: a third of all arrivals is refused."""
    draw = random.Random(1)
    spread = tuple(draw.expovariate(1.0) for _ in range(20_000))
    scale = mean(list(spread))
    service = ServiceTimes("x", 1, ((1, 0.01),), tuple(each / scale for each in spread))
    found = simulate(Fleet(service, Limits(1, 0.0, 1)), 100.0, requests=60_000)
    assert found.refused / 54_000 == pytest.approx(1 / 3, rel=0.04)


def test_the_refused_count_as_never_answered() -> None:
    service = ServiceTimes("x", 1, ((1, 0.01),))
    found = simulate(Fleet(service, Limits(1, 0.0, 1)), 100.0, requests=5_000)
    assert found.refused > 0.02 * 4_500
    assert found.percentile(0.99) == math.inf
    assert found.percentile(0.5) < 0.03


def test_replicas_share_the_load() -> None:
    """A random balancer thins a Poisson process: each of four replicas is the queue of a quarter of it."""
    service = ServiceTimes("x", 1, ((1, 0.01),))
    one = simulate(Fleet(service, ONE_BY_ONE), 60.0, requests=60_000)
    four = simulate(Fleet(service, ONE_BY_ONE, replicas=4), 240.0, requests=60_000)
    assert mean(list(four.latencies)) == pytest.approx(mean(list(one.latencies)), rel=0.08)
    assert four.busy == pytest.approx(0.6, rel=0.03)


def test_balancers_that_look_spread_better_than_dice() -> None:
    """With services alike taking turns is best of all; where they vary it pays to count who is busy."""
    service = ServiceTimes("x", 1, ((1, 0.01),), (0.1, 0.1, 0.1, 3.7))
    waits = {
        name: mean(list(simulate(Fleet(service, ONE_BY_ONE, 4, name), 240.0, requests=20_000).latencies))
        for name in ("random", "round-robin", "least-requests")
    }
    assert waits["least-requests"] < waits["round-robin"] < waits["random"]


def test_requests_of_several_images_are_batches_of_them() -> None:
    service = ServiceTimes("x", 3, ((1, 0.001), (8, 0.008)))
    found = simulate(Fleet(service, Limits(24, 0.0, 10_000), images=4), 200.0, requests=2_000)
    assert 4.0 <= found.images <= 8.0
    assert found.latencies[0] == pytest.approx(0.004)


def test_the_same_seed_sends_the_same() -> None:
    fleet = Fleet(ServiceTimes("x", 1, ((1, 0.01),)), ONE_BY_ONE)
    assert simulate(fleet, 50.0, 1000, 3) == simulate(fleet, 50.0, 1000, 3)
    assert simulate(fleet, 50.0, 1000, 3) != simulate(fleet, 50.0, 1000, 4)
