"""The fewest replicas that answer in time, and the batch limits to give them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from bench.plan.batcher import BATCH_DELAY, BATCH_ROWS, QUEUE_ROWS, Limits
from bench.plan.service import ServiceTimes
from bench.plan.simulation import Balancer, Fleet, Simulated, simulate
from bench.plan.units import PlanError

__all__ = ["SHARE", "Aim", "Planned", "least", "plan", "serves"]

BATCHES = (8, 32)  # images: what is tried beside the default
DELAYS = (0.0, 0.005)  # seconds
MOST_REPLICAS = 1000
SHARE = 0.99  # of the requests that have to be answered in time


@dataclass(frozen=True)
class Aim:
    """`rate` images a second, in requests of `images`, of which 99 % are answered within `p99` seconds."""

    rate: float
    p99: float
    images: int = 1
    balancer: Balancer = "random"


@dataclass(frozen=True)
class Planned:
    """The fleet that serves an aim, and what the simulation says of it."""

    fleet: Fleet
    outcome: Simulated


def plan(service: ServiceTimes, aim: Aim) -> Planned:
    """The fewest replicas, with the gateway's default limits where these need no more than others.

    Raises `PlanError` where no number of replicas can do it.
    """
    alone = service.alone(SHARE)
    if service.seconds(aim.images) > aim.p99 or alone > aim.p99:
        raise PlanError(
            f"{service.preset}: one request alone takes {1000 * alone:.3g} ms (at {SHARE:.0%}) on an idle "
            f"device, {1000 * service.seconds(aim.images):.3g} ms of it there: more than the "
            f"{1000 * aim.p99:.3g} ms asked for, whatever the number of replicas"
        )
    low = least(service, aim)
    if low > MOST_REPLICAS:
        raise PlanError(f"{service.preset}: more than {MOST_REPLICAS} replicas would be needed")
    high, found = low, serves(service, aim, low)
    while found is None:
        if high == MOST_REPLICAS:
            raise PlanError(
                f"{service.preset}: no {MOST_REPLICAS} replicas answer {SHARE:.0%} of the requests within "
                f"{1000 * aim.p99:.3g} ms; one alone takes {1000 * alone:.3g} ms"
            )
        low, high = high + 1, min(MOST_REPLICAS, math.ceil(1.5 * high) + 1)
        found = serves(service, aim, high)
    while low < high:
        middle = (low + high) // 2
        better = serves(service, aim, middle)
        if better is None:
            low = middle + 1
        else:
            high, found = middle, better
    return found


def least(service: ServiceTimes, aim: Aim) -> int:
    """Replicas below which the queue would grow without end, whatever the limits."""
    most = max(
        service.capacity(limits.batch_rows // service.rows or 1) for limits in candidates(service, aim)
    )
    return max(1, math.ceil(aim.rate / most))


def candidates(service: ServiceTimes, aim: Aim) -> Iterator[Limits]:
    """The defaults first, then others. Nobody may queue who could only be answered too late."""
    rows = service.rows * aim.images
    batches = dict.fromkeys((BATCH_ROWS, *(max(size * service.rows, rows) for size in BATCHES)))
    for batch_rows in batches:
        for delay in (BATCH_DELAY, *DELAYS):
            in_time = service.capacity(max(1, batch_rows // service.rows)) * aim.p99 * service.rows
            queue_rows = min(QUEUE_ROWS, math.ceil(in_time))
            yield Limits(batch_rows, delay, max(batch_rows, queue_rows, rows))


def serves(service: ServiceTimes, aim: Aim, replicas: int) -> Planned | None:
    """With the default limits if they do, else with those of the lowest p99; None where none will."""
    served = []
    for number, limits in enumerate(candidates(service, aim)):
        if aim.rate / replicas > service.capacity(max(1, limits.batch_rows // service.rows)):
            continue
        fleet = Fleet(service, limits, replicas, aim.balancer, aim.images)
        planned = Planned(fleet, simulate(fleet, aim.rate))
        if planned.outcome.percentile(SHARE) <= aim.p99:
            if number == 0:
                return planned
            served.append(planned)
    return min(served, key=lambda each: each.outcome.percentile(SHARE), default=None)
