"""More than it can do, for a long time: memory flat, latency bounded, refusals honest, nobody lost.

    python -m tests.proof.soak --seconds 600      `make soak` runs it, and then the kills

One closed loop finds the capacity; then requests come at 120 % of it, whether or not earlier ones have been
answered. Each caller knows its images' labels and checks them. Writes a report, and exits 1 where a bound
is broken.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle
from tests.proof.fuzz import Resources

__all__ = ["Soak", "soak"]

IMAGES, KINDS = 16, 32  # images in a request, and how many different requests there are
CLOSED = 16  # callers whose closed loop finds the capacity
LOAD = 1.2
GROWTH_MIB_PER_HOUR = 60.0  # more is no flat memory; 10 MiB in ten minutes
DEADLINE_MS = 2000
KEPT_DECISIONS = 60_000  # reached within a minute: old ones are being removed for most of the time
CLIENTS, CONNECTIONS = 18, 50  # httpx looks through all connections of a client for every request
GRACE_S = 1.0  # for the way there and back, and a client as busy as the gateway


@dataclass
class Soak:
    """What happened. Times in seconds; `memory` is (seconds, MiB) once a second."""

    capacity: float = 0.0  # requests per second
    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """MiB per hour, the slope of memory over the second half: the first fills pools and caches."""
        late = np.array(self.memory[len(self.memory) // 2 :])
        return float(np.polyfit(late[:, 0], late[:, 1], 1)[0] * 3600) if len(late) > 2 else 0.0

    def judge(self, *, long: bool) -> None:
        """Find what is wrong; the bounds on time and memory hold for `long` runs alone."""
        if sum(self.statuses.values()) != self.sent:
            self.wrong.append(f"{self.sent} sent, {sum(self.statuses.values())} answered")
        others = set(self.statuses) - {"200", "503 overloaded", "504 deadline-exceeded"}
        if others:
            self.wrong.append(f"unforeseen answers: {others}")
        if not self.served:
            self.wrong.append("nothing was served")
        if not long:
            return
        if max(self.served, default=0) > DEADLINE_MS / 1000 + GRACE_S:
            self.wrong.append(f"an answer took {max(self.served):.2f} s")
        if len(self.memory) > 60 and self.growth > GROWTH_MIB_PER_HOUR:
            self.wrong.append(f"memory grows by {self.growth:.0f} MiB per hour")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()))
        offered = LOAD * self.capacity
        rows = [f"capacity {self.capacity:.1f} requests/s of {IMAGES} images; offered {offered:.1f}/s",
                f"{self.sent} sent: {counts}",
                f"answered 200 after (p50, p99, max): {_percentiles(self.served)}",
                f"answered 503 after (p50, p99, max): {_percentiles(self.refused)}"]  # fmt: skip
        if self.memory:
            first, last = self.memory[0][1], self.memory[-1][1]
            rows.append(f"memory {first:.0f} → {last:.0f} MiB, {self.growth:+.1f} MiB/h over the second half")
        return "\n".join([*rows, f"{len(self.wrong)} wrong", *self.wrong[:20]])


def _percentiles(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    return ", ".join(f"{value * 1000:.0f} ms" for value in np.percentile(seconds, [50, 99, 100]))


class Callers:
    """Everybody who sends; they know what each of their requests has to be answered."""

    def __init__(self, https: Sequence[httpx.AsyncClient], report: Soak) -> None:
        self.https, self.report = https, report
        bodies = [httpx.Request("POST", "http://x", files=form(pngs(IMAGES, seed))) for seed in range(KINDS)]
        self.bodies = [(each.read(), each.headers["content-type"]) for each in bodies]
        self.expected: list[list[object]] = []

    async def learn(self) -> None:
        for number in range(KINDS):
            self.expected.append(_told((await self.send(number)).json()))

    async def send(self, number: int) -> httpx.Response:
        content, kind = self.bodies[number % KINDS]
        headers = {"Content-Type": kind, "X-Request-Timeout-Ms": str(DEADLINE_MS)}
        http = self.https[number % len(self.https)]
        return await http.post("/classify", content=content, headers=headers)

    async def ask(self, number: int) -> None:
        """Send, and take down what came of it."""
        began = time.monotonic()
        try:
            answer = await self.send(number)
        except httpx.HTTPError as error:
            self.report.statuses[f"lost: {type(error).__name__}"] += 1
            return
        took, body = time.monotonic() - began, answer.json()
        kind = "" if answer.status_code == 200 else " " + body["type"].rpartition(":")[2]
        self.report.statuses[f"{answer.status_code}{kind}"] += 1
        if answer.status_code == 200:
            self.report.served.append(took)
            if _told(body) != self.expected[number % KINDS]:
                self.report.wrong.append(f"request {number} got another's answer")
        elif answer.status_code == 503:
            self.report.refused.append(took)
            if int(answer.headers.get("retry-after", 0)) < 1:
                self.report.wrong.append(f"request {number} was refused without Retry-After")


def _told(body: dict[str, list[dict[str, object]]]) -> list[object]:
    """Confidences to 3 digits: every image has its own."""
    told: list[object] = []
    for result in body["results"]:
        prediction = result["prediction"]
        told.append(round(prediction["confidence"], 3) if isinstance(prediction, dict) else None)
    return told


async def _capacity(callers: Callers, seconds: float) -> float:
    """Requests per second of `CLOSED` callers who each send when they are answered."""
    end, done = time.monotonic() + seconds, 0

    async def loop(first: int) -> None:
        nonlocal done
        for number in itertools.count(first, CLOSED):
            if time.monotonic() >= end:
                return
            await callers.send(number)
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(loop(first) for first in range(CLOSED)))
    return done / (time.monotonic() - began)


async def _run(url: str, pid: int, seconds: float, report: Soak) -> None:
    limits = httpx.Limits(max_connections=CONNECTIONS)
    async with AsyncExitStack() as stack:
        clients = [httpx.AsyncClient(base_url=url, timeout=30, limits=limits) for _ in range(CLIENTS)]
        callers = Callers([await stack.enter_async_context(each) for each in clients], report)
        await callers.learn()
        report.capacity = await _capacity(callers, min(10.0, seconds / 2))
        began, waiting = time.monotonic(), set()
        while (now := time.monotonic() - began) < seconds:
            due = int(now * LOAD * report.capacity)
            for number in range(report.sent, due):
                task = asyncio.create_task(callers.ask(number))
                waiting.add(task)
                task.add_done_callback(waiting.discard)
            report.sent = max(report.sent, due)
            if len(report.memory) < now:
                report.memory.append((now, Resources.of(pid).memory))
            await asyncio.sleep(0.005)
        await asyncio.gather(*waiting)


def soak(seconds: float, directory: Path) -> Soak:
    """Overload a gateway with its data in `directory` for so many seconds."""
    report = Soak()
    settings = {"bundle": write_bundle(directory / "bundle"), "data_dir": directory / "data", "device": "cpu",
                "alpha": 0.4, "detectors": ["spc", "psc"], "psc_n": 2, "queue_rows": 4096,
                "decision_rows": KEPT_DECISIONS}  # fmt: skip
    with Service(**settings) as service:
        assert service.http.post("/calibrate", files=form(pngs(60, seed=1))).status_code == 201
        asyncio.run(_run(service.url, service.process.pid, seconds, report))
        if (code := service.stop()) != 0:
            report.wrong.append(f"after SIGTERM it exited with {code}")
    report.judge(long=seconds >= 60)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/soak.txt"))
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = soak(wanted.seconds, Path(directory))
    wanted.out.parent.mkdir(parents=True, exist_ok=True)
    wanted.out.write_text(f"{report}\n", encoding="utf-8")
    print(report)
    sys.exit(1 if report.wrong else 0)


if __name__ == "__main__":
    main()
