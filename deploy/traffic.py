"""Traffic for deploy/check-replicas.sh, and whether what came back kept the promises.

    traffic.py drive URL FOLDER LOG     send the images below FOLDER, again and again, until SIGTERM
    traffic.py judge URL LOG EVENTS     compare LOG with EVENTS, and with the decisions that were recorded

A line of LOG is one request: when it was sent and answered (Unix seconds), its status, and what it was told.
One of EVENTS is `TIME killed SINCE` or `TIME activated SINCE ID`: done at TIME, asked for at SINCE.
"""

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import httpx

SENDERS = 3  # requests at a time
FLUSH_S = (
    2.0  # a gateway that is killed loses the decisions of its last moments (decision_flush_ms), and no others
)
LIMIT = 1000  # decisions on one page


class Activation(NamedTuple):
    """From `asked` on, answers may name calibration `id`; from `at` on they must, within the bound."""

    at: float
    asked: float
    id: str


def drive(url: str, folder: Path, log: Path) -> None:
    images = [file.read_bytes() for file in sorted(folder.rglob("*.png"))]
    stopping, lock, numbers = threading.Event(), threading.Lock(), itertools.count()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())

    def send() -> None:
        with httpx.Client(base_url=url, timeout=60) as http, log.open("a") as lines:
            while not stopping.is_set():
                number = next(numbers)
                id, sent = f"check-{number}", time.time()
                headers = {"Content-Type": "image/png", "X-Request-ID": id}
                try:
                    answer = http.post("/classify", content=images[number % len(images)], headers=headers)
                    told = {
                        "status": answer.status_code,
                        "retry": answer.headers.get("retry-after"),
                        **answer.json(),
                    }
                except (httpx.TransportError, ValueError) as error:
                    told = {"status": repr(error)}
                with lock:
                    lines.write(json.dumps({"id": id, "sent": sent, "answered": time.time(), **told}) + "\n")
                    lines.flush()
                time.sleep(0.02)

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        time.sleep(0.1)


def judge(url: str, log: Path, events: Path) -> bool:
    """Print what came of it; False where a promise was broken."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    happened = [line.split() for line in events.read_text().splitlines()]
    activated = [Activation(float(at), float(rest[0]), rest[1]) for at, what, *rest in happened if rest[1:]]
    lag = float(os.environ["TRIGGERWALL_CALIBRATION_LAG_S"])
    killed = [(float(since) - FLUSH_S, float(at)) for at, what, since, *_ in happened if what == "killed"]
    answers = [line for line in lines if line["status"] == 200]
    times = Counter(decision["request_id"] for decision in decisions(url))
    missing = [line for line in answers if times[line["id"]] == 0]
    checks = {
        "answered with neither 200 nor an honest 503": [line for line in lines if not honest(line)],
        "labels that nobody inspected": [line for line in answers if not inspected(line)],
        "calibrations older than the bound": [line for line in answers if lateness(line, activated) > lag],
        "decisions that were recorded more than once": [id for id, count in times.items() if count > 1],
        "decisions not recorded, but for the last moments of a killed gateway": [
            line for line in missing if not any(since <= line["answered"] <= at for since, at in killed)
        ],
    }
    print(f"     {len(lines)} requests: {dict(Counter(str(line['status']) for line in lines))}")
    print(f"     refused: {dict(Counter(line['type'] for line in lines if line['status'] == 503))}")
    print(f"     judged by: {dict(Counter(line['calibration'] for line in answers))}")
    print(f"     lost with a killed gateway: {len(missing)} of {len(answers)} decisions")
    latest = max((lateness(line, activated) for line in answers), default=0.0)
    print(f"     the latest answer by a replaced calibration: {latest:.2f} s after the other's activation")
    for what, found in checks.items():
        print(f"{'BAD ' if found else 'ok  '} {what}: {len(found)} {found[:2] if found else ''}")
    return bool(answers) and not any(checks.values())


def honest(line: dict[str, Any]) -> bool:
    return line["status"] == 200 or (line["status"] == 503 and "type" in line and line["retry"] is not None)


def inspected(line: dict[str, Any]) -> bool:
    """A label left only where a calibration judged, and every detector cleared the image."""
    return all(
        each["prediction"] is None
        or (
            line["calibration"]
            and each["detections"]
            and not any(d["suspicious"] for d in each["detections"])
        )
        for each in line["results"]
    )


def lateness(line: dict[str, Any], activated: list[Activation]) -> float:
    """Seconds between the activation of another calibration and this answer; 0 where it was up to date."""
    mine = [each.asked for each in activated if each.id == line["calibration"]]
    since = max((asked for asked in mine if asked <= line["answered"]), default=float("-inf"))
    others = (each.at for each in activated if each.id != line["calibration"])
    replaced = [at for at in others if since < at <= line["answered"]]
    return line["answered"] - min(replaced) if replaced else 0.0


def decisions(url: str) -> list[dict[str, Any]]:
    """Those of this traffic, from the database that all gateways write to."""
    found: list[dict[str, Any]] = []
    with httpx.Client(
        base_url=url, headers={"X-API-Key": os.environ["TRIGGERWALL_ADMIN_KEY"]}, timeout=60
    ) as http:
        page = {"next": None}
        while not found or page["next"] is not None:
            query = {"limit": LIMIT, **({"before": page["next"]} if page["next"] else {})}
            page = http.get("/decisions", params=query).raise_for_status().json()
            found += page["decisions"]
            if not page["decisions"]:
                break
    return [each for each in found if each["request_id"].startswith("check-")]


if __name__ == "__main__":
    command, url, *paths = sys.argv[1:]
    if command == "drive":
        drive(url, *map(Path, paths))
    elif not judge(url, *map(Path, paths)):
        sys.exit(1)
