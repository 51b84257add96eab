"""Disks that are full or have become read-only, and clocks that jump: what is enforced stays enforced."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import calibrator
from app.main import create_app
from app.storage.database import FILE_NAME
from app.storage.errors import StoreError
from tests.app.conftest import MakeClient, MakeSettings
from tests.app.tiny import form, pngs

PNG = {"Content-Type": "image/png"}
ROOM = 1024 * 1024  # bytes of the small disk


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", f"size={ROOM}", "none", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))


def active(client: TestClient) -> str:
    return str(client.get("/calibrations").json()["active"])


def whole(disk: Path) -> bool:
    with sqlite3.connect(disk / FILE_NAME) as connection:
        return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_a_full_disk_changes_nothing_and_is_over_when_it_is_over(make_client: MakeClient, disk: Path) -> None:
    client = make_client(data_dir=disk)
    first = client.post("/calibrate", files=form(pngs(40, seed=1))).json()["id"]
    fill(disk)
    for seed in range(3):
        refused = client.post("/calibrate", files=form(pngs(40, seed=seed)))
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:triggerwall:problem:store-failed")
        assert active(client) == first
        judged = client.post("/classify", content=pngs(1)[0], headers=PNG).json()
        assert judged["calibration"] == first
    assert client.get("/readyz").status_code == client.get("/livez").status_code == 200
    (disk / "ballast").unlink()
    second = client.post("/calibrate", files=form(pngs(40, seed=9)))
    assert second.status_code == 201
    assert active(client) == second.json()["id"]
    assert whole(disk)


def test_a_disk_that_is_read_only(make_client: MakeClient, make_settings: MakeSettings, disk: Path) -> None:
    """A gateway does not start on it, and says so in a sentence; on another day all is there."""
    client = make_client(data_dir=disk)
    first = client.post("/calibrate", files=form(pngs(40, seed=1))).json()["id"]
    client.__exit__(None, None, None)
    mount("-o", "remount,ro", str(disk))
    with pytest.raises(StoreError, match="cannot be used"):
        create_app(make_settings(data_dir=disk))
    mount("-o", "remount,rw", str(disk))
    assert active(make_client(data_dir=disk)) == first
    assert whole(disk)


def test_a_clock_that_jumps(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years back and forth: the order of activations counts, never what the clock said."""
    client = make_client()
    made = []
    for number, year in enumerate([2026, 2001, 2060, 1999]):
        monkeypatch.setattr(calibrator, "now", lambda year=year: datetime(year, 1, 1, tzinfo=UTC))
        answer = client.post("/calibrate", files=form(pngs(40, seed=number)))
        assert answer.status_code == 201
        made.append(answer.json()["id"])
        assert active(client) == made[-1]
        assert client.post("/classify", content=pngs(1)[0], headers=PNG).json()["calibration"] == made[-1]
    assert [each["id"] for each in client.get("/calibrations").json()["calibrations"]] == made[::-1]
    assert client.post(f"/calibrations/{made[1]}/activate").status_code == 200
    assert active(client) == made[1]
    assert "calibration_age_seconds" in client.get("/metrics").text
    client.__exit__(None, None, None)
    assert active(make_client()) == made[1]  # after a restart too
