"""Mutated image files through a real gateway: no crash, no leak, no wrong answer.

    python -m tests.proof.fuzz --images 10000       what `make fuzz` runs

Each file goes as a body of its own or as one part of a form, many at once, and a good image goes with every
form: it has to get the same label as ever. Memory, file descriptors and threads of the gateway are compared
between the first tenth of the run and its end.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle
from tests.proof.mutations import FORMATS, MAX_PIXELS, Mutant, mutant

__all__ = ["Findings", "fuzz"]

TYPES = {
    413: {"image-too-large"},
    415: {"unsupported-image"},
    422: {"unreadable-image", "empty-image"},
}
PART = 8  # images in a form
CLIENTS = 8
GROWTH_MIB = 64.0  # what the allocator may keep: a few decoded images per thread
LAZY_THREADS = 8  # of pools that start theirs as they are needed


@dataclass
class Resources:
    """Of the gateway's process; `memory` is resident, in MiB."""

    memory: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> "Resources":
        process = Path(f"/proc/{pid}")
        pages = int((process / "statm").read_text().split()[1])
        return cls(
            pages * 4096 / 2**20,
            len(list((process / "fd").iterdir())),
            len(list((process / "task").iterdir())),
        )


@dataclass
class Findings:
    """What a run found; `wrong` is empty where all is well."""

    images: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    before: Resources | None = None
    after: Resources | None = None
    seconds: float = 0.0

    def judge(self, sent: Mutant, number: int, status: int, type: str) -> None:
        self.images += 1
        self.statuses[status] += 1
        kind = type.rpartition(":")[2]
        if status not in sent.statuses:
            self.wrong.append(f"{number} ({sent.name}): {status} {kind}, wanted {sorted(sent.statuses)}")
        elif status != 200 and kind not in TYPES[status]:
            self.wrong.append(f"{number} ({sent.name}): {status} is called {kind}")

    def compare(self) -> None:
        """Whatever was taken has to have been given back."""
        assert self.before is not None
        assert self.after is not None
        if self.after.memory > self.before.memory + GROWTH_MIB:
            self.wrong.append(f"memory grew from {self.before.memory:.0f} to {self.after.memory:.0f} MiB")
        if self.after.descriptors > self.before.descriptors + CLIENTS:
            self.wrong.append(f"descriptors grew from {self.before.descriptors} to {self.after.descriptors}")
        if self.after.threads > self.before.threads + LAZY_THREADS:
            self.wrong.append(f"threads grew from {self.before.threads} to {self.after.threads}")

    def __str__(self) -> str:
        counts = ", ".join(f"{count} × {status}" for status, count in sorted(self.statuses.items()))
        lines = [f"{self.images} files in {self.seconds:.0f} s: {counts}"]
        if self.before and self.after:
            lines += [
                f"memory {self.before.memory:.0f} → {self.after.memory:.0f} MiB, descriptors "
                f"{self.before.descriptors} → {self.after.descriptors}, threads "
                f"{self.before.threads} → {self.after.threads}"
            ]
        return "\n".join([*lines, f"{len(self.wrong)} wrong", *self.wrong[:50]])


async def one(http: httpx.AsyncClient, number: int, findings: Findings) -> None:
    """A file as the body."""
    sent = mutant(number)
    answer = await http.post("/classify", content=sent.data, headers={"Content-Type": "image/png"})
    body = answer.json()
    findings.judge(sent, number, answer.status_code, body.get("type", ""))


async def some(http: httpx.AsyncClient, numbers: range, good: bytes, label: int, findings: Findings) -> None:
    """Files as parts of a form with a good image in their midst."""
    sent = [mutant(number) for number in numbers]
    middle = len(sent) // 2
    parts = [each.data for each in sent]
    answer = await http.post("/classify", files=form([*parts[:middle], good, *parts[middle:]]))
    if answer.status_code != 200:
        findings.wrong.append(f"the form of {numbers}: {answer.status_code} {answer.text[:200]}")
        return
    results: list[dict[str, Any]] = answer.json()["results"]
    if results[middle]["prediction"]["label"] != label:
        findings.wrong.append(f"the good image in the form of {numbers} got another label")
    for number, each, result in zip(numbers, sent, results[:middle] + results[middle + 1 :], strict=True):
        error = result.get("error") or {"status": 200, "type": ""}
        findings.judge(each, number, error["status"], error["type"])


async def send(url: str, numbers: range, good: bytes, label: int, findings: Findings) -> None:
    """All files, every second lot of them in forms, `CLIENTS` requests at a time."""
    gate = asyncio.Semaphore(CLIENTS)

    async def lot(start: int) -> None:
        within = range(start, min(start + PART, numbers.stop))
        async with gate:
            if start // PART % 2:
                await some(http, within, good, label, findings)
            else:
                for number in within:
                    await one(http, number, findings)

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await asyncio.gather(*(lot(start) for start in numbers[::PART]))


def fuzz(images: int, directory: Path, first: int = 0) -> Findings:
    """Send `images` files, from number `first` on, to a gateway with its data in `directory`."""
    findings = Findings()
    settings = {"bundle": write_bundle(directory / "bundle"), "data_dir": directory / "data", "device": "cpu",
                "mode": "monitor", "detectors": ["spc"], "image_formats": list(FORMATS),
                "max_pixels": MAX_PIXELS, "decode_threads": 4}  # fmt: skip
    good = pngs(1, seed=99)[0]
    log = directory / "gateway.log"
    with log.open("wb") as errors, Service(errors, **settings) as service:
        answer = service.http.post("/classify", content=good, headers={"Content-Type": "image/png"})
        label = answer.json()["results"][0]["prediction"]["label"]
        started, warm = time.monotonic(), first + max(images // 10, 1)
        asyncio.run(send(service.url, range(first, warm), good, label, findings))
        findings.before = Resources.of(service.process.pid)
        asyncio.run(send(service.url, range(warm, first + images), good, label, findings))
        findings.after = Resources.of(service.process.pid)
        findings.seconds = time.monotonic() - started
        if service.process.poll() is not None or service.http.get("/livez").status_code != 200:
            findings.wrong.append("the gateway did not live to the end")
        if "internal-error" in service.http.get("/metrics").text:
            findings.wrong.append("something unforeseen was raised")
    said = log.read_text(errors="replace")
    if "Traceback" in said or "Warning" in said:
        findings.wrong.append(f"the gateway's log: {said[-2000:]}")
    findings.compare()
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutated image files through a real gateway.")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first file: other numbers, other files"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        findings = fuzz(asked.images, Path(directory), asked.first)
    print(findings)
    sys.exit(bool(findings.wrong))


if __name__ == "__main__":
    main()
