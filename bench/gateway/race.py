"""All servers of one subject, up at once, loaded one at a time, round after round in random order."""

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.gateway.cost import Counted, per_image
from bench.gateway.floor import FLOOR, Floor
from bench.gateway.load import Outcome, closed_loop, open_loop
from bench.gateway.servers import BATCH, UNDEFENDED, NoServer, Server, make
from bench.gateway.subject import Subject
from bench.timing import orders, spread

__all__ = ["Measured", "Plan", "at_the_floor", "race"]

WARM_S = 1.0
Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """`shares`: rates of the open loop as shares of each server's own capacity, which `clients` in a closed
    loop find first. `seconds` for each of either, in `rounds` parts."""

    servers: Sequence[str]
    shares: Sequence[float] = (0.3, 0.5, 0.7, 0.9)
    seconds: float = 20.0
    rounds: int = 4
    clients: int = 32


@dataclass
class Measured:
    """One server: `capacity` by round, in images a second; `latency` in seconds and `failed` by share of the
    capacity; `stages` in milliseconds per image; or `skipped`, why there is nothing."""

    server: str
    capacity: list[float] = field(default_factory=list)
    offered: dict[float, float] = field(default_factory=dict)
    latency: dict[float, list[float]] = field(default_factory=dict)
    failed: dict[float, int] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None


def race(
    subject: Subject, plan: Plan, litserve: Path | None, advance: Advance = lambda *_: None
) -> list[Measured]:
    """Measure every server of `plan`; one that cannot be started is a row that says why. The undefended
    gateway brings along what latencies would be without any server."""
    rows = {name: Measured(name) for name in plan.servers}
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for number, name in enumerate(plan.servers):
            advance(f"starting {name}", number / len(plan.servers))
            try:
                servers[name] = stack.enter_context(make(name, subject.bundle, litserve))
                if servers[name].calibrates:
                    calibrate(servers[name], subject.calibration)
            except (NoServer, OSError) as error:
                rows[name].skipped = str(error).strip().splitlines()[-1][:200]
                servers.pop(name, None)
        _race(subject, plan, servers, rows, advance)
        if UNDEFENDED in servers:
            rows[FLOOR] = at_the_floor(Floor.of(subject, BATCH), plan, rows[UNDEFENDED], advance)
    return list(rows.values())


def _race(
    subject: Subject, plan: Plan, servers: dict[str, Server], rows: dict[str, Measured], advance: Advance
) -> None:
    requests = {
        name: [server.request(image) for image in subject.traffic] for name, server in servers.items()
    }
    part = plan.seconds / plan.rounds
    for name, server in servers.items():
        asyncio.run(closed_loop(server.url, requests[name], plan.clients, WARM_S))
    order = orders(list(servers))
    for number in range(plan.rounds):
        for name in next(order):
            advance(f"capacity of {name}", number / plan.rounds)
            before = Counted.of(servers[name])
            found = asyncio.run(closed_loop(servers[name].url, requests[name], plan.clients, part))
            rows[name].capacity.append(found.rate)
            if found.latencies and number == plan.rounds - 1:
                rows[name].stages = per_image(before, Counted.of(servers[name]), len(found.latencies))
    for share in plan.shares:
        for number in range(plan.rounds):
            for name in next(order):
                advance(f"{share:.0%} of the capacity of {name}", number / plan.rounds)
                rate = share * spread(rows[name].capacity).median
                if rate > 0:
                    found = asyncio.run(open_loop(servers[name].url, requests[name], rate, part, number))
                    _add(rows[name], share, rate, found)


def at_the_floor(floor: Floor, plan: Plan, gateway: Measured, advance: Advance) -> Measured:
    """At the rates that `gateway` was asked at."""
    row, part = Measured(FLOOR), plan.seconds / plan.rounds
    floor.capacity(WARM_S)
    for number in range(plan.rounds):
        advance(FLOOR, number / plan.rounds)
        row.capacity.append(floor.capacity(part))
        for share, rate in gateway.offered.items():
            _add(row, share, rate, floor.open_loop(rate, part, number))
    return row


def _add(row: Measured, share: float, rate: float, found: Outcome) -> None:
    row.offered[share] = rate
    row.latency.setdefault(share, []).extend(found.latencies)
    row.failed[share] = row.failed.get(share, 0) + sum(found.failed.values())


def calibrate(server: Server, images: Sequence[bytes]) -> None:
    """Send benign `images`. Raises `NoServer` with the gateway's own words."""
    boundary = "triggerwall-bench"
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="{n}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + image
        + b"\r\n"
        for n, image in enumerate(images)
    )
    head: dict[str, Any] = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    asked = urllib.request.Request(
        server.url + "/calibrate", parts + f"--{boundary}--\r\n".encode(), head, method="POST"
    )
    try:
        urllib.request.urlopen(asked, timeout=600).read()
    except urllib.error.HTTPError as error:
        raise NoServer(f"{server.name} was not calibrated: {error.read().decode()[:300]}") from error
