"""Service times of a real gateway on this machine, one preset after another.

Requests one at a time say what a request costs besides the device, and how much a batch of one varies. More
and more callers at once then make larger and larger batches, while decoding and HTTP go on beside them as
they will in service: on a CPU these take from the device, and early exit takes what the traffic lets it.
"""

import asyncio
import http.client
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.gateway.cost import Counted, batches
from bench.gateway.load import closed_loop
from bench.gateway.race import calibrate
from bench.gateway.servers import Server, gateway
from bench.gateway.subject import Subject
from bench.plan.service import Front, ServiceTimes
from bench.plan.units import PlanError

__all__ = ["DEFAULT", "PRESETS", "measure", "served", "settings_of"]

UNDEFENDED, DEFAULT = "undefended", "default"
PRESETS: dict[str, Mapping[str, str]] = {
    UNDEFENDED: {"mode": "monitor", "detectors": "psc"},  # and never calibrated: nothing but the prediction
    "profile": {"detectors": "profile"},
    "psc": {"detectors": "psc"},
    "psc-fast": {"detectors": "psc", "psc_precision": "bfloat16", "psc_channels_last": "true",
                 "psc_fold": "true"},
    "spc": {"detectors": "spc"},
    DEFAULT: {"detectors": "profile,psc,spc"},
}  # fmt: skip
CALLERS = (2, 4, 8, 16, 32, 64)
ONE_LANE = {"lanes": "1"}  # as is simulated: a replica has one device
NO_WAIT = {"batch_delay_ms": "0"}  # a batch is what came while the last one was under way
LEAST_BATCHES = 5
Advance = Callable[[str, float], None]


@dataclass(frozen=True)
class _Alone:
    """Requests sent one at a time: seconds of each, and of the device within it."""

    whole: Sequence[float]
    device: Sequence[float]


def settings_of(preset: str) -> Mapping[str, str]:
    """Of a preset's name, or of detectors' names with commas."""
    return PRESETS.get(preset, {"detectors": preset})


def served(preset: str, subject: Subject, settings: Mapping[str, str], device: str) -> Server:
    """A gateway not yet started; `settings` besides those of the preset."""
    return gateway(
        f"triggerwall, {preset}", subject.bundle, {**settings_of(preset), **ONE_LANE, **settings},
        device=device, calibrates=preset != UNDEFENDED,
    )  # fmt: skip


def measure(
    presets: Sequence[str], subject: Subject, seconds: float, device: str, advance: Advance = lambda *_: None
) -> list[ServiceTimes]:
    """Measure each preset for about `seconds`. Raises `NoServer`, and `PlanError` where a gateway answers
    nothing."""
    found = []
    for number, preset in enumerate(presets):
        advance(f"starting {preset}", number / len(presets))
        with served(preset, subject, NO_WAIT, device) as server:
            if server.calibrates:
                calibrate(server, subject.calibration)
            advance(f"measuring {preset}", (number + 0.5) / len(presets))
            found.append(_measure(preset, server, subject.traffic, seconds / (len(CALLERS) + 2)))
    return found


def _measure(preset: str, server: Server, images: Sequence[bytes], seconds: float) -> ServiceTimes:
    _alone(server, images, seconds / 2)  # warms up
    counted = batches(server)
    alone = _alone(server, images, 1.5 * seconds)
    rows = _difference(batches(server), counted)["rows"] / len(alone.whole)
    device = sum(alone.device) / len(alone.device)
    points = {1.0: device}
    requests = [server.request(image) for image in images]
    loop = most = 0.0
    for callers in CALLERS:
        before, counted = Counted.of(server), batches(server)
        outcome = asyncio.run(closed_loop(server.url, requests, callers, seconds))
        after, counted = Counted.of(server), _difference(batches(server), counted)
        if not outcome.latencies:
            raise PlanError(f"{preset}: the gateway answered none of {callers} callers: {outcome.failed}")
        size = counted["images"] / counted["batches"]
        spent = sum(after.seconds[stage] - before.seconds[stage] for stage in ("predict", "detect"))
        if counted["batches"] >= LEAST_BATCHES and size > 1.5 * max(points):
            points[size] = spent / counted["batches"]
        most = max(most, outcome.rate)
        loop = (after.seconds["loop"] - before.seconds["loop"]) / len(outcome.latencies)
    whole = sum(alone.whole) / len(alone.whole)
    front = Front(loop, max(0.0, whole - device - loop))
    spread = tuple(each / device for each in alone.device)
    return ServiceTimes(preset, round(rows), tuple(points.items()), spread, front, most)


def _alone(server: Server, images: Sequence[bytes], seconds: float) -> _Alone:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    whole: list[float] = []
    device: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not whole:
        began = time.perf_counter()
        body = images[len(whole) % len(images)]
        connection.request("POST", server.path, body, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        said = answer.read()
        whole.append(time.perf_counter() - began)
        timing = re.search(r"device;dur=([\d.]+)", answer.headers.get("Server-Timing", ""))
        if answer.status != 200 or timing is None:
            raise PlanError(f"{server.name} answered {answer.status}: {said.decode(errors='replace')[:300]}")
        device.append(max(float(timing[1]), 0.05) / 1000)  # it is told in tenths of a millisecond
    connection.close()
    return _Alone(whole, device)


def _difference(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}
