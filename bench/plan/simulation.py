"""Discrete-event simulation of replicas behind a balancer, under Poisson arrivals."""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from bench.plan.batcher import Batcher, Limits
from bench.plan.service import ServiceTimes

__all__ = ["BALANCERS", "Balancer", "Fleet", "Simulated", "simulate"]

Balancer = Literal["random", "round-robin", "least-requests"]
BALANCERS: tuple[Balancer, ...] = ("random", "round-robin", "least-requests")
WARM = 0.1  # share of the requests before the queues are as they stay, which are not counted


@dataclass(frozen=True)
class Fleet:
    """`replicas` gateways alike behind a `balancer`; every request holds so many `images`."""

    service: ServiceTimes
    limits: Limits = field(default_factory=Limits)
    replicas: int = 1
    balancer: Balancer = "random"
    images: int = 1


@dataclass(frozen=True)
class Simulated:
    """`latencies` in seconds of the requests answered, in ascending order; how many were `refused` (503); the
    share of the time that a device was `busy`, and the mean number of `images` in a batch."""

    latencies: Sequence[float]
    refused: int
    busy: float
    images: float

    def percentile(self, share: float) -> float:
        """Seconds within which that `share` of all requests was answered; a refused one never was."""
        place = int(share * (len(self.latencies) + self.refused))
        return self.latencies[place] if place < len(self.latencies) else float("inf")


class Draw(Protocol):
    """Of `random.Random`, what is needed."""

    def random(self) -> float: ...
    def expovariate(self, rate: float, /) -> float: ...


class _Replica:
    def __init__(self, fleet: Fleet) -> None:
        self.batcher = Batcher(fleet.limits, fleet.images * fleet.service.rows)
        self.loop_free = 0.0  # when the event loop has worked off what came
        self.under_way: list[int] = []  # requests at the device
        self.open = 0  # requests that the balancer sent and that were not answered
        self.busy = 0.0  # seconds of the device
        self.batches = self.served = 0


def simulate(fleet: Fleet, rate: float, requests: int = 10_000, seed: int = 0) -> Simulated:
    """`requests` that arrive at random, `rate` images a second in the mean. The same seed sends the same."""
    return _Run(fleet, random.Random(seed)).through(rate / fleet.images, requests)


class _Run:
    def __init__(self, fleet: Fleet, draw: Draw) -> None:
        self.fleet, self.draw, self.now = fleet, draw, 0.0
        self.replicas = [_Replica(fleet) for _ in range(fleet.replicas)]
        self.choose = self._balancer()
        self.events: list[tuple[float, int, Callable[[float, _Replica, int], None], _Replica, int]] = []
        self.order = itertools.count()
        self.arrived: list[float] = []
        self.answered: list[float | None] = []

    def _balancer(self) -> Callable[[], _Replica]:
        if self.fleet.balancer == "round-robin":
            turn = itertools.cycle(self.replicas)
            return lambda: next(turn)
        if self.fleet.balancer == "least-requests":
            return lambda: min(self.replicas, key=lambda replica: replica.open)
        return lambda: self.replicas[int(self.draw.random() * len(self.replicas))]

    def through(self, rate: float, requests: int) -> Simulated:
        now = 0.0
        for request in range(requests):
            now += self.draw.expovariate(rate)
            self._work(until=now)
            self._arrive(now, request)
        self._work(until=float("inf"))
        counted = self.answered[int(WARM * requests) :]
        first = self.arrived[int(WARM * requests)]
        latencies = sorted(
            end - begin
            for begin, end in zip(self.arrived, self.answered, strict=True)
            if end is not None and begin >= first
        )
        batches = sum(replica.batches for replica in self.replicas)
        served = sum(replica.served for replica in self.replicas)
        busy = sum(replica.busy for replica in self.replicas) / len(self.replicas) / now
        return Simulated(
            latencies, counted.count(None), busy, served * self.fleet.images / batches if batches else 0.0
        )

    def _at(
        self, time: float, event: Callable[[float, _Replica, int], None], replica: _Replica, request: int = -1
    ) -> None:
        heapq.heappush(self.events, (time, next(self.order), event, replica, request))

    def _work(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, event, replica, request = heapq.heappop(self.events)
            event(self.now, replica, request)

    # --- events -----------------------------------------------------------------------------------

    def _arrive(self, now: float, request: int) -> None:
        """At the balancer; the event loop reads requests one after another."""
        replica = self.choose()
        replica.open += 1
        self.arrived.append(now)
        self.answered.append(None)
        replica.loop_free = max(now, replica.loop_free) + self.fleet.service.front.loop * self.fleet.images
        self._at(replica.loop_free, self._offer, replica, request)

    def _offer(self, now: float, replica: _Replica, request: int) -> None:
        if replica.batcher.offer(request, now):
            self._serve(now, replica)
        else:
            replica.open -= 1

    def _serve(self, now: float, replica: _Replica, _: int = -1) -> None:
        """Send a batch to the device where one is due and it is free; else look again when it is."""
        due = replica.batcher.due()
        if replica.under_way or due is None:
            return
        if due > now:
            self._at(due, self._serve, replica)
            return
        replica.under_way = replica.batcher.take()
        service = self.fleet.service
        mean = service.seconds(len(replica.under_way) * self.fleet.images)
        seconds = mean * service.spread[int(self.draw.random() * len(service.spread))]
        replica.busy += seconds
        replica.batches += 1
        replica.served += len(replica.under_way)
        self._at(now + seconds, self._done, replica)

    def _done(self, now: float, replica: _Replica, _: int = -1) -> None:
        for request in replica.under_way:
            self.answered[request] = now + self.fleet.service.front.aside
        replica.open -= len(replica.under_way)
        replica.under_way = []
        self._serve(now, replica)
