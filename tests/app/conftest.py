"""The smallest gateway: a tiny bundle, a data directory of its own, a client on it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.tiny import form, pngs, write_bundle

MakeSettings = Callable[..., Settings]
MakeClient = Callable[..., TestClient]
LOOPBACK = "http://127.0.0.1"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TRIGGERWALL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def make_settings(bundle: Path, tmp_path: Path) -> MakeSettings:
    def make(**overrides: Any) -> Settings:
        base = {
            "bundle": bundle,
            "data_dir": tmp_path / "data",
            "device": "cpu",
            "alpha": 0.4,
            "detectors": ("spc",),
            "decode_threads": 2,
            "batch_delay_ms": 1,
            "packed_weights": False,  # tracing takes longer than most tests, and gateways of their own do it
        }
        return Settings(**{**base, **overrides})

    return make


@pytest.fixture
def make_client(make_settings: MakeSettings) -> Iterator[MakeClient]:
    """Clients of running gateways; the lifespan of each ends with the test."""
    running: list[TestClient] = []

    def make(**overrides: Any) -> TestClient:
        client = TestClient(create_app(make_settings(**overrides)), base_url=LOOPBACK)
        client.__enter__()
        running.append(client)
        return client

    yield make
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A gateway that was never calibrated."""
    return make_client()


@pytest.fixture
def calibrated(client: TestClient) -> TestClient:
    """A gateway with a calibration on 40 benign images."""
    answer = client.post("/calibrate", files=form(pngs(40, seed=1)))
    assert answer.status_code == 201, answer.text
    return client
