"""`kill -9` at random moments of calibrating, activating and classifying: what was answered is there, what is
there is whole, and the calibration that judges is the right one.

    python -m tests.proof.crash --kills 100       part of `make soak`
"""

import argparse
import random
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle

__all__ = ["Crashes", "crash"]

PNG = {"Content-Type": "image/png"}
DATABASE = "triggerwall.sqlite3"
LIFE_S = (0.0, 1.0)  # how long a gateway lives once it answers, or once it has answered a change


@dataclass
class Crashes:
    """What a run found; `wrong` is empty where all is well. `answered`: the calibrations, in order, that a
    client was told of; `enforced`: what the last answered change made active."""

    kills: int = 0
    answered: list[str] = field(default_factory=list)
    enforced: str | None = None
    pending: set[str] = field(default_factory=set)  # asked to become active, not answered
    changes: int = 0  # answered
    judged: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        done = f"{len(self.answered)} calibrations kept, {self.judged} images judged"
        return "\n".join([f"{self.kills} kills: {done}", f"{len(self.wrong)} wrong", *self.wrong[:50]])

    def expect(self, is_so: bool, otherwise: str) -> None:
        if not is_so:
            self.wrong.append(f"life {self.kills}: {otherwise}")


def crash(kills: int, directory: Path, seed: int = 0) -> Crashes:
    """Kill a gateway `kills` times; its data lies in `directory`."""
    luck, found = random.Random(seed), Crashes()
    settings = {"bundle": write_bundle(directory / "bundle"), "data_dir": directory / "data", "device": "cpu",
                "alpha": 0.4, "detectors": ["spc"]}  # fmt: skip
    while found.kills < kills:
        with Service(**settings) as service:
            _look(service, found)
            _live(service, found, luck)
        found.kills += 1
        _check_database(directory / "data" / DATABASE, found)
    with Service(**settings) as service:
        _look(service, found)
    return found


def _live(service: Service, found: Crashes, luck: random.Random) -> None:
    """Calibrate, activate and classify, all at once, until the kill."""
    ended = threading.Event()
    workers = []
    for work in (_change, _classify, _classify):
        doing = (work, service.url, found, random.Random(luck.random()), ended)
        workers.append(threading.Thread(target=_until_killed, args=doing))
    for worker in workers:
        worker.start()
    before, latest = found.changes, time.monotonic() + 60
    if found.kills == 0 or luck.random() < 0.5:  # on a slow machine too, some changes are answered
        while found.changes == before and time.monotonic() < latest:
            time.sleep(0.005)
    time.sleep(luck.uniform(*LIFE_S))
    service.kill()
    ended.set()
    for worker in workers:
        worker.join()


def _until_killed(work: Any, url: str, found: Crashes, luck: random.Random, ended: threading.Event) -> None:
    with httpx.Client(base_url=url, timeout=30) as http:
        while not ended.is_set():
            try:
                work(http, found, luck)
            except httpx.TransportError:
                return


def _change(http: httpx.Client, found: Crashes, luck: random.Random) -> None:
    """Make a calibration, or go back to an older one."""
    if found.answered and luck.random() < 0.4:
        id = luck.choice(found.answered)
        found.pending = {id}
        answer = http.post(f"/calibrations/{id}/activate")
        found.expect(answer.status_code == 200, f"activating {id}: {answer.text}")
    else:
        found.pending = {"new"}
        answer = http.post("/calibrate", files=form(pngs(12, luck.randrange(10**6))))
        found.expect(answer.status_code == 201, f"calibrating: {answer.text}")
        id = answer.json()["id"]
        found.answered.append(id)
    found.enforced, found.pending = id, set()
    found.changes += 1


def _classify(http: httpx.Client, found: Crashes, luck: random.Random) -> None:
    calibrated = bool(found.answered)  # before it is asked: a calibration may be answered meanwhile
    answer = http.post("/classify", content=pngs(1, luck.randrange(10**6))[0], headers=PNG)
    if answer.status_code == 503:
        found.expect(not calibrated, f"classifying: {answer.text}")
        return
    found.judged += 1
    result = answer.json()["results"][0]
    found.expect(answer.json()["calibration"] is not None, "judged by no calibration")
    found.expect((result["verdict"] == "accepted") == (result["prediction"] is not None), f"{result}")


def _look(service: Service, found: Crashes) -> None:
    """What a gateway says of itself after its predecessor was killed."""
    history = service.http.get("/calibrations").json()
    ids = [each["id"] for each in history["calibrations"]]
    missing = set(found.answered) - set(ids)
    found.expect(not missing, f"calibrations that were answered are gone: {missing}")
    unanswered = set(ids) - set(found.answered)
    found.expect(len(unanswered) <= len(found.pending & {"new"}), f"never asked for: {unanswered}")
    allowed = {found.enforced} | (unanswered if "new" in found.pending else found.pending)
    found.expect(history["active"] in allowed, f"{history['active']} is active, not one of {allowed}")
    found.answered += sorted(unanswered)
    found.enforced, found.pending = history["active"], set()
    ready = service.http.get("/readyz").status_code
    found.expect(ready == (200 if history["active"] else 503), f"/readyz says {ready}")
    if history["active"]:
        judged = service.http.post("/classify", content=pngs(1)[0], headers=PNG).json()
        found.expect(judged["calibration"] == history["active"], f"judged by {judged['calibration']}")


def _check_database(path: Path, found: Crashes) -> None:
    with sqlite3.connect(path) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    found.expect(verdict == "ok", f"integrity_check: {verdict}")
    found.expect(not broken, f"foreign_key_check: {broken}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = crash(wanted.kills, Path(directory), wanted.seed)
    print(found)
    sys.exit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
