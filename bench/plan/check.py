"""Does the simulation tell the truth? One gateway on this machine, under open-loop load at two rates."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.gateway.load import open_loop
from bench.gateway.race import calibrate
from bench.gateway.subject import Subject
from bench.plan.batcher import Limits
from bench.plan.measure import served
from bench.plan.service import ServiceTimes
from bench.plan.simulation import Fleet, Simulated, simulate
from bench.plan.units import PlanError

__all__ = ["Checked", "check", "error"]

LOADS = (0.4, 0.7)  # of the capacity that the simulation assumes
WARM_S = 2.0


@dataclass(frozen=True)
class Checked:
    """One preset at one rate, in images a second: what is `simulated`, and the `measured` latencies of those
    answered 200, seconds in ascending order; `load` is the machine's load average after the run."""

    preset: str
    rate: float
    simulated: Simulated
    measured: Sequence[float]
    failed: int
    load: float

    def percentile(self, share: float) -> float:
        place = int(share * (len(self.measured) + self.failed))
        return self.measured[place] if place < len(self.measured) else float("inf")


def check(
    service: ServiceTimes,
    limits: Limits,
    subject: Subject,
    seconds: float,
    device: str,
    advance: Callable[[str, float], None] = lambda *_: None,
) -> list[Checked]:
    """Load one gateway with these limits for `seconds` at each rate. Raises `NoServer`, and `PlanError` where
    nothing was answered."""
    settings = {
        "batch_rows": str(limits.batch_rows),
        "batch_delay_ms": f"{1000 * limits.batch_delay:g}",
        "queue_rows": str(limits.queue_rows),
    }
    most = service.capacity(max(1, limits.batch_rows // service.rows))
    found = []
    with served(service.preset, subject, settings, device) as server:
        if server.calibrates:
            calibrate(server, subject.calibration)
        requests = [server.request(image) for image in subject.traffic]
        asyncio.run(open_loop(server.url, requests, LOADS[0] * most, WARM_S, seed=1))
        for number, load in enumerate(LOADS):
            advance(f"checking {service.preset}", number / len(LOADS))
            rate = load * most
            outcome = asyncio.run(open_loop(server.url, requests, rate, seconds, seed=2 + number))
            if not outcome.latencies:
                raise PlanError(f"{service.preset}: nothing was answered at {rate:.0f} images/s")
            found.append(
                Checked(
                    service.preset,
                    rate,
                    simulate(Fleet(service, limits), rate),
                    sorted(outcome.latencies),
                    sum(outcome.failed.values()),
                    os.getloadavg()[0],
                )
            )
    return found


def error(checked: Checked, share: float) -> float:
    """Of the simulation, as a share of what was measured."""
    return checked.simulated.percentile(share) / checked.percentile(share) - 1
