"""Where the time of a request goes: what the kernel and the gateway have counted between two moments."""

import re
import urllib.request
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

from bench.gateway.servers import Server

__all__ = ["STAGES", "Counted", "batches", "per_image"]

STAGES = {
    "event loop (CPU): HTTP, batching, JSON": "loop",
    "whole process (CPU)": "process",
    "decode (CPU)": "decode",
    "wait for batch and device": "queue",
    "plain prediction": "predict",
    "detectors": "detect",
}
"""Row of the table → what is counted. CPU is of threads; the rest is wall-clock time."""
TICK = sysconf("SC_CLK_TCK")
SUMS = {
    "predict": r'^triggerwall_stage_duration_seconds_sum{stage="predict"} (\S+)',
    "detect": r'^triggerwall_stage_duration_seconds_sum{stage="detect"} (\S+)',
    "queue": r"^triggerwall_queue_duration_seconds_sum (\S+)",
}
BATCHES = {
    "batches": r"^triggerwall_batch_images_count (\S+)",
    "images": r"^triggerwall_batch_images_sum (\S+)",
    "rows": r"^triggerwall_batch_rows_sum (\S+)",
}


@dataclass(frozen=True)
class Counted:
    """Seconds by stage since the server began; those of the gateway's own metrics only where it is ours."""

    seconds: dict[str, float]

    @classmethod
    def of(cls, server: Server) -> "Counted":
        pid = server.process.pid
        family = [pid, *_children(pid)]
        found = {"loop": _cpu(Path(f"/proc/{pid}/task/{pid}/stat")),
                 "process": sum(_cpu(Path(f"/proc/{each}/stat")) for each in family)}  # fmt: skip
        if server.is_ours:
            found["decode"] = sum(_cpu(each / "stat") for each in _threads(pid, "decode"))
            text = _metrics(server)
            found |= {name: _sum(pattern, text) for name, pattern in SUMS.items()}
        return cls(found)


def per_image(before: Counted, after: Counted, images: int) -> dict[str, float]:
    """Milliseconds per image by stage."""
    return {name: 1000 * (after.seconds[name] - before.seconds[name]) / images for name in after.seconds}


def batches(server: Server) -> dict[str, float]:
    """How many `batches` one of our gateways has run, of how many `images`, of how many `rows` at most."""
    text = _metrics(server)
    return {name: _sum(pattern, text) for name, pattern in BATCHES.items()}


def _metrics(server: Server) -> str:
    text: str = urllib.request.urlopen(server.url + "/metrics", timeout=10).read().decode()
    return text


def _sum(pattern: str, metrics: str) -> float:
    found = re.search(pattern, metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _cpu(stat: Path) -> float:
    """Seconds of CPU, user and system, in a `stat` file of /proc; 0 where its process has ended."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def _threads(pid: int, name: str) -> list[Path]:
    """The folders in /proc of the process's threads of that name."""
    found = []
    for path in Path(f"/proc/{pid}/task").iterdir():
        try:
            if (path / "comm").read_text().strip() == name:
                found.append(path)
        except OSError:  # it has ended
            continue
    return found


def _children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += [child, *_children(child)]
    return found
