"""`triggerwall bench console`: how long the console's pages take with much in SQLite.

Fills the data directory of a gateway that is down, as its own tables want it, starts the gateway and asks for
every page over HTTP, one after another.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

__all__ = ["console", "fill", "time_pages"]

FILE = "triggerwall.sqlite3"
DAYS = 30
STOPPED = 0.05  # share of the decisions that are rejections
LABELS = 10
DETECTORS = ("profile", "psc", "spc")
AT_ONCE = 20_000  # rows inserted together
Values = tuple[str | bytes | float | None, ...]
Rows = tuple[list[Values], list[Values], list[Values]]
"""Of decisions, of their detections, of the quarantine."""
PNG_SIDE = 28
PAGES = {
    "overview": "/console",
    "overview, a month": "/console?within=month",
    "live part": "/console/live",
    "detectors": "/console/detectors?within=all",
    "calibrations": "/console/calibrations",
    "quarantine": "/console/quarantine",
    "quarantine, filtered": "/console/quarantine?label=3&detector=profile&review=open",
    "quarantine, no match": "/console/quarantine?detector=spc&label=3",
    "incidents": "/console/incidents?within=all",
    "what if, as it is": "/console/what-if?within=all",
    "what if, alpha": "/console/what-if?alpha=5&within=all",
    "what if, T": "/console/what-if?t-profile=20&within=all",
}
out = Console(highlight=False)


def console(
    decisions: Annotated[int, typer.Option(min=1, help="Decisions in the database.")] = 1_000_000,
    images: Annotated[int, typer.Option(min=60, help="Images in quarantine.")] = 10_000,
    bundle: Annotated[Path, typer.Option(help="The model to serve.")] = Path("models/demo"),
    rounds: Annotated[int, typer.Option(min=1, help="Times that each page is asked for.")] = 7,
    result: Annotated[Path | None, typer.Option(help="Where the figures go, as JSON.")] = None,
) -> None:
    """Time every page of the console with a large SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with running(bundle, data) as (http, _):
            _calibrate(http)
        started = time.perf_counter()
        with out.status(f"storing {decisions} decisions and {images} images"):
            fill(data, decisions, images)
        out.print(
            f"stored {decisions} decisions and {images} images in {time.perf_counter() - started:.0f} s"
        )
        with running(bundle, data) as (http, process):
            figures = time_pages(http, process, rounds)
    out.print(_table(figures))
    if result is not None:
        result.write_text(
            json.dumps({"decisions": decisions, "images": images, "seconds": figures}, indent=1)
        )


@contextlib.contextmanager
def running(bundle: Path, data: Path) -> Iterator[tuple[httpx.Client, int]]:
    """A gateway of this checkout over `data`, and the number of its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "bench.gateway.serve",
        "serve",
        "--bundle",
        str(bundle),
        "--port",
        str(port),
    ]
    settings = {"data_dir": data, "mode": "monitor", "device": "cpu", "log_level": "error"}
    env = {**os.environ, **{f"TRIGGERWALL_{name.upper()}": str(value) for name, value in settings.items()}}
    process = subprocess.Popen(command, env=env)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as http:
            _wait(http, process)
            yield http, process.pid
    finally:
        process.terminate()
        process.wait(60)


def _wait(http: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            http.get("/livez")
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise typer.Exit(2)


def _calibrate(http: httpx.Client) -> None:
    """Two calibrations on noise: there is something to list, compare and judge by."""
    for seed in range(2):
        files = [("images", (f"{n}.png", _png(seed * 1000 + n))) for n in range(24)]
        http.post("/calibrate", files=files, data={"alpha": "0.5"}).raise_for_status()


def _png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (PNG_SIDE, PNG_SIDE), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def fill(data: Path, decisions: int, images: int) -> None:
    """Store `decisions` over the last `DAYS`; the last `images` rejections are kept as files."""
    rng, now = random.Random(0), time.time()
    stopped = max(round(decisions * STOPPED), images)
    rejected = set(rng.sample(range(decisions), stopped))
    kept = set(sorted(rejected)[-images:])
    database = sqlite3.connect(data / FILE)
    database.execute("PRAGMA synchronous=OFF")
    (calibration,) = database.execute("SELECT id FROM calibrations ORDER BY number DESC LIMIT 1").fetchone()
    traffic: dict[tuple[int, str], int] = {}
    rows: Rows = ([], [], [])
    for number in range(decisions):
        at = now - DAYS * 86400 * (1 - (number + 1) / decisions)
        id, hit = (round(at * 1_000_000) << 12) + number % 4096, number in rejected
        verdict = "rejected" if hit else "accepted"
        digest = hashlib.sha256(str(number).encode()).digest()
        if number in kept:
            content = _png(number)
            digest = hashlib.sha256(content).digest()
            _store(data, digest.hex(), content)
            rows[2].append(
                (
                    digest,
                    id,
                    at,
                    len(content),
                    "image/png",
                    1,
                    rng.choice([None, None, "trigger", "false_alarm"]),
                )
            )
        label = 3 if hit and rng.random() < 0.6 else rng.randrange(LABELS)
        rows[0].append(
            (id, at, f"request-{number}", 0, digest, label, rng.random(), verdict, "enforce", calibration)
        )
        for place, name in enumerate(DETECTORS):
            says = hit and place == 0
            score = 30 + 100 * rng.random() if says else 20 * rng.random() ** 2
            if place:
                score = rng.random()
            rows[1].append(
                (
                    id,
                    name,
                    score,
                    0.001 if says else rng.random(),
                    25.0 if place == 0 else 1.0,
                    says,
                    place != 1,
                )
            )
        key = (int(at // 60), verdict)
        traffic[key] = traffic.get(key, 0) + 1
        if len(rows[0]) >= AT_ONCE:
            _insert(database, rows)
    _insert(database, rows)
    database.executemany("INSERT INTO traffic VALUES (?,?,?)", [(m, v, n) for (m, v), n in traffic.items()])
    database.commit()
    database.close()


def _insert(database: sqlite3.Connection, rows: Rows) -> None:
    database.executemany("INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?,?,?)", rows[0])
    database.executemany("INSERT INTO detections VALUES (?,?,?,?,?,?,?)", rows[1])
    columns = "sha256, decision_id, stored_at, size, media_type, times, mark"
    database.executemany(f"INSERT INTO quarantine ({columns}) VALUES (?,?,?,?,?,?,?)", rows[2])
    database.commit()
    for each in rows:
        each.clear()


def _store(data: Path, name: str, content: bytes) -> None:
    file = data / "quarantine" / name[:2] / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def time_pages(http: httpx.Client, process: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """By page, for each of `rounds`: seconds until the answer, and seconds of processor time that the gateway
    took, which other work on the machine does not lengthen. A round before these fills caches."""
    pages = {**PAGES, **_found(http)}
    figures: dict[str, dict[str, list[float]]] = {name: {"answer": [], "processor": []} for name in pages}
    for number in range(rounds + 1):
        for name, url in pages.items():
            started, worked = time.perf_counter(), _processor_seconds(process)
            http.get(url).raise_for_status()
            if number:
                figures[name]["answer"].append(time.perf_counter() - started)
                figures[name]["processor"].append(_processor_seconds(process) - worked)
    return figures


def _processor_seconds(process: int) -> float:
    """What all threads of `process` took so far; 0 where this is not Linux."""
    files = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in files) / 1e9


def _table(figures: dict[str, dict[str, list[float]]]) -> Table:
    table = Table("page", "answer, median ms", "longest ms", "processor, median ms")
    for name, each in figures.items():
        cells = (statistics.median(each["answer"]), max(each["answer"]), statistics.median(each["processor"]))
        table.add_row(name, *[f"{1000 * seconds:.0f}" for seconds in cells])
    return table


def _found(http: httpx.Client) -> dict[str, str]:
    """Pages whose address depends on what is stored."""
    gallery, incidents = http.get(PAGES["quarantine"]).text, http.get(PAGES["incidents"]).text
    listed = http.get("/calibrations").json()["calibrations"]
    image = re.findall(r'href="/console/quarantine/([0-9a-f]{64})"', gallery)[0]
    before = re.findall(r'href="\?(before=\d+)" rel="next"', gallery)[0]
    incident = re.findall(r'href="(/console/incidents/\d+/\d+/\d+)"', incidents)
    found = {
        "quarantine, next page": f"/console/quarantine?{before}",
        "an image": f"/console/quarantine/{image}",
        "a thumbnail": f"/console/pictures/{image}.png",
        "an image under a probe": f"/console/pictures/{image}/probes/blur.png",
        "a report": f"/console/calibrations/{listed[0]['id']}",
        "two calibrations": f"/console/calibrations/compare?a={listed[1]['id']}&b={listed[0]['id']}",
    }
    if incident:
        found |= {"an incident": incident[0], "its average": f"{incident[0]}/average.png"}
    return found
