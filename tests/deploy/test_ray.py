"""Triggerwall on a real Ray Serve with a real PostgreSQL, while replicas die, calibrations change, the
database is away, a new configuration or another model is rolled out, and scorers come and go."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
import torch

from app.assembly import build_firewall
from app.firewall import CalibrationContent, Firewall
from app.settings import Settings
from app.storage.calibrations import CalibrationStore
from app.storage.database import Database
from tests.app.storage.postgres import Postgres, missing
from tests.app.tiny import encoded, form, pixels, pngs, write_bundle
from tests.peers import PATIENT
from tests.ray_cluster import ADMIN, PATIENCE_S, RayCluster

LAG_S = 4.0
SETTINGS: dict[str, Any] = {
    "detectors": ["psc", "spc"],
    "alpha": 0.4,
    "psc_engine": "copies",  # it is built at once
    "calibration_lag_s": LAG_S,
    "decode_threads": 2,
    "decision_flush_ms": 50,
    "request_timeout_ms": 120_000,  # on a busy machine nobody shall be told 504
}
# Ray's autoscaling, in a hurry: its own delays are half a minute and ten.
BY_WORK = {
    "min_replicas": 1,
    "max_replicas": 2,
    "target_ongoing_requests": 0.5,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
}
IMAGES = pixels(24, seed=7)
FILES = [encoded(image) for image in IMAGES]


@dataclass(frozen=True)
class Answer:
    sent: float  # seconds of `time.monotonic`
    places: tuple[int, ...]  # which of IMAGES were sent; -1 cannot be read
    response: httpx.Response


class Traffic:
    """Requests of several kinds, from several threads, for the length of the `with` block."""

    def __init__(self, url: str, threads: int = 3) -> None:
        self.url, self.answers = url, list[Answer]()
        self._stopping = threading.Event()
        self._failed: list[Exception] = []
        self._threads = [threading.Thread(target=self._try, args=[seed]) for seed in range(threads)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _try(self, seed: int) -> None:
        try:
            self._serve(seed)
        except Exception as error:  # a connection that broke off, or no answer at all
            self._failed.append(error)

    def _serve(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        with httpx.Client(base_url=self.url, timeout=PATIENCE_S / 2) as client:
            while not self._stopping.is_set():
                places = tuple(random.choice(len(IMAGES), random.integers(1, 5), replace=False).tolist())
                sent = time.monotonic()
                kind = random.integers(4)
                if kind == 0:
                    places = places[:1]
                    response = client.post(
                        "/classify", content=FILES[places[0]], headers={"Content-Type": "image/png"}
                    )
                elif kind == 1:
                    response = client.post("/v2/models/tiny/infer", json=infer(places))
                else:
                    places = (*places, -1) if kind == 2 else places
                    files = [FILES[place] if place >= 0 else b"no image" for place in places]
                    response = client.post("/classify", files=form(files))
                self.answers.append(Answer(sent, places, response))

    def until(self, count: int) -> None:
        """Wait for so many more answers with verdicts."""
        wanted = len(self.good()) + count
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert not self._failed, self._failed
            if len(self.good()) >= wanted:
                return
            time.sleep(0.05)
        raise TimeoutError(str(Counter(each.response.status_code for each in self.answers)))

    def good(self) -> list[Answer]:
        return [each for each in self.answers if each.response.status_code == 200]


def infer(places: Sequence[int]) -> dict[str, Any]:
    images = IMAGES[list(places)]
    tensor = {
        "name": "x",
        "shape": [*images.shape[:1], 8, 8, 1],
        "datatype": "UINT8",
        "data": images.ravel().tolist(),
    }
    return {"inputs": [tensor], "outputs": [{"name": "label"}], "parameters": {"partial": True}}


def calibration_of(answer: Answer) -> str:
    body = answer.response.json()
    return str(body["parameters"]["calibration"] if "parameters" in body else body["calibration"])


def labels_of(answer: Answer) -> list[int | None]:
    """The label that each image was given, None where it was withheld."""
    body = answer.response.json()
    if "outputs" in body:
        (label,) = body["outputs"]
        return [None if each < 0 else each for each in label["data"]]
    return [each["prediction"] and each["prediction"]["label"] for each in body["results"]]


class Expected:
    """What one process says of every image, by each calibration."""

    def __init__(self, settings: Settings) -> None:
        self.firewall: Firewall = build_firewall(settings)
        self.images = torch.from_numpy(IMAGES / np.float32(255))[:, None]
        assert settings.database_url is not None
        self.store = CalibrationStore(Database(Path(), settings.database_url.get_secret_value()))
        self.known: dict[str, list[int | None]] = {}

    def labels(self, calibration: str, places: Sequence[int]) -> list[int | None]:
        if calibration not in self.known:
            content = CalibrationContent.from_json(self.store.get(calibration).content)
            guard = self.firewall.prepare(calibration, content)
            judged = self.firewall.judge(guard, self.images)
            self.known[calibration] = [each.label if each.verdict == "accepted" else None for each in judged]
        return [None if place < 0 else self.known[calibration][place] for place in places]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Postgres() as server:
        yield server


def calibrate(url: str, seed: int) -> str:
    answer = httpx.post(
        f"{url}/calibrate", files=form(pngs(60, seed=seed)), headers=ADMIN, timeout=PATIENCE_S
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def decisions(url: str) -> Counter[tuple[str, int]]:
    """How often each image of each request was recorded."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT request_id, place, COUNT(*) FROM decisions GROUP BY 1, 2"
        ).fetchall()
    return Counter({(request, place): count for request, place, count in rows})


@PATIENT
def test_no_fault_lets_anything_slip_through(postgres: Postgres, tmp_path: Path) -> None:
    bundle, database = write_bundle(tmp_path / "bundle"), postgres.create()
    settings = {"bundle": str(bundle), "data_dir": str(tmp_path / "data"), **SETTINGS}
    with RayCluster(TRIGGERWALL_DATABASE_URL=database) as cluster:
        cluster.deploy(2, **settings)
        cluster.until_running(2)
        first, second = calibrate(cluster.url, 1), calibrate(cluster.url, 2)
        switched: list[tuple[float, str]] = [(time.monotonic(), second)]
        time.sleep(LAG_S)
        with Traffic(cluster.url) as traffic:
            traffic.until(30)
            before = cluster.scorers()
            os.kill(before[0], signal.SIGKILL)
            traffic.until(60)

            answer = httpx.post(f"{cluster.url}/calibrations/{first}/activate", headers=ADMIN, timeout=60)
            assert answer.status_code == 200, answer.text
            switched.append((time.monotonic(), first))
            traffic.until(60)

            postgres.stop()
            time.sleep(2 * LAG_S)
            away = time.monotonic()
            postgres.start()
            traffic.until(60)

            cluster.until_running(2)
            assert before[0] not in cluster.scorers()
            cluster.deploy(
                2, **settings, batch_delay_ms=3
            )  # another configuration: every replica is replaced
            time.sleep(1)
            cluster.until_running(2)
            assert not {*before} & {*cluster.scorers()}
            traffic.until(60)
        check_answers(traffic, Expected(Settings(database_url=database, **settings)), switched, away)
        check_decisions(traffic, database)
        info = httpx.get(f"{cluster.url}/info", headers=ADMIN).json()
        assert (info["decisions"]["dropped"], info["decisions"]["problem"]) == (0, None)


@PATIENT
def test_another_model_is_rolled_out_and_scorers_come_and_go_with_the_work(
    postgres: Postgres, tmp_path: Path
) -> None:
    """No label of either model leaves that a calibration of that model did not let through."""
    models = [{"bundle": str(write_bundle(tmp_path / f"{seed}", seed=seed))} for seed in (0, 1)]
    database = postgres.create()
    settings = {"data_dir": str(tmp_path / "data"), **SETTINGS}
    with RayCluster(TRIGGERWALL_DATABASE_URL=database) as cluster:
        cluster.deploy(1, **models[0], **settings)
        cluster.until_running(1)
        calibrations = [calibrate(cluster.url, 1)]
        with Traffic(cluster.url) as traffic:
            traffic.until(30)
            cluster.deploy(1, **models[1], **settings)
            time.sleep(1)
            cluster.until_running(1)
            quiet = len(traffic.good())
            time.sleep(LAG_S)
            assert len(traffic.good()) - quiet <= 3, "answers that were under way, one a thread"
            calibrations.append(calibrate(cluster.url, 2))
            traffic.until(30)

            cluster.deploy(BY_WORK, **models[1], **settings)
            cluster.until_running(2)
            traffic.until(60)
        cluster.until_running(1)
    seen = Counter(calibration_of(each) for each in traffic.good())
    assert set(seen) == {*calibrations}
    experts = [Expected(Settings(database_url=database, **model, **settings)) for model in models]
    for each in traffic.good():
        calibration = calibration_of(each)
        expert = experts[calibrations.index(calibration)]
        assert labels_of(each) == expert.labels(calibration, each.places)
    others = [each.response for each in traffic.answers if each.response.status_code != 200]
    assert {each.status_code for each in others} == {503}
    slugs = Counter(each.json()["type"].rpartition(":")[2] for each in others)
    print(seen, slugs)
    # What the new model says until its first calibration. Waiting mends nothing: no Retry-After.
    assert slugs["calibration-mismatch"] > 0
    assert sum("retry-after" not in each.headers for each in others) == slugs["calibration-mismatch"]
    check_decisions(traffic, database)


def check_answers(
    traffic: Traffic, expected: Expected, switched: list[tuple[float, str]], away: float
) -> None:
    named = Counter()
    for each in traffic.good():
        calibration = calibration_of(each)
        named[calibration] += 1
        # A label that nobody inspected, or that another calibration let through, would differ.
        assert labels_of(each) == expected.labels(calibration, each.places)
        # As of when it was sent: how long an answer is on its way to us is not the gateway's doing.
        late = [id for at, id in switched if at + LAG_S < each.sent]
        allowed = {late[-1], *(id for at, id in switched if at + LAG_S >= each.sent)}
        assert calibration in allowed
    assert set(named) == {id for _, id in switched}
    assert expected.known[switched[0][1]] != expected.known[switched[1][1]]
    others = [each for each in traffic.answers if each.response.status_code != 200]
    for each in others:
        problem = each.response.json()
        assert each.response.status_code == 503, each.response.text
        assert problem["type"].startswith("urn:triggerwall:problem:"), problem
        assert int(each.response.headers["retry-after"]) >= 1
    slugs = Counter(each.response.json()["type"].rpartition(":")[2] for each in others)
    print(len(traffic.answers), named, slugs)
    assert slugs["calibration-stale"] > 0  # the database was away for longer than the bound
    assert not [each for each in traffic.good() if away - LAG_S < each.sent < away - 0.5]


def check_decisions(traffic: Traffic, database: str) -> None:
    answered = Counter[tuple[str, int]]()
    for each in traffic.good():
        request = each.response.headers["x-request-id"]
        answered.update((request, number) for number, place in enumerate(each.places) if place >= 0)
    for _ in range(200):
        if len(decisions(database)) >= len(answered):
            break
        time.sleep(0.05)
    assert decisions(database) == answered
