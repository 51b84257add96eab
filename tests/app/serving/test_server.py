"""Stopping: who is told what, and that it ends."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.serving import server as module
from app.serving.server import GatewayServer
from tests.app.conftest import MakeSettings
from tests.app.service import Service
from tests.app.tiny import Mood, encoded, in_mood, pixels, pngs, write_bundle

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def settings(bundle: Path, tmp_path: Path) -> dict[str, object]:
    common = {"bundle": bundle, "data_dir": tmp_path / "data", "device": "cpu", "detectors": ["spc"]}
    return {**common, "mode": "monitor"}


def test_sigterm_ends_it_with_0(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ready at once, still answering for the notice, everything accepted answered, then gone."""
    with Service(**settings, stop_notice_s=1.5, batch_delay_ms=300) as service:
        assert service.http.get("/readyz").status_code == 200
        service.process.terminate()
        for _ in range(200):
            ready = httpx.get(f"{service.url}/readyz")
            if ready.status_code == 503:
                break
            time.sleep(0.01)
        assert ready.json()["type"] == "urn:triggerwall:problem:shutting-down"
        assert httpx.get(f"{service.url}/livez").status_code == 200
        answers: list[int] = []
        failures: list[BaseException | None] = []
        monkeypatch.setattr(threading, "excepthook", lambda raised: failures.append(raised.exc_value))

        def ask() -> None:
            while True:
                try:
                    answer = httpx.post(f"{service.url}/classify", content=pngs(1)[0], headers=PNG)
                except (httpx.ConnectError, httpx.ReadError, httpx.WriteError):
                    return  # the port is closed: nobody took the connection
                answers.append(answer.status_code)

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        assert service.process.wait(timeout=60) == 0
        for client in clients:
            client.join()
    assert failures == []
    assert len(answers) >= 4
    assert set(answers) == {200}


def test_a_stop_ends_even_when_the_device_does_not_return(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOODY_STUCK_S", "600")
    moody = write_bundle(tmp_path / "moody", kind="moody")
    stopping = {"stop_notice_s": 0, "stop_timeout_s": 1}
    with Service(**{**settings, **stopping, "bundle": moody}, request_timeout_ms=100) as service:
        image = encoded(in_mood(pixels(1)[0], Mood.STUCK))
        assert service.http.post("/classify", content=image, headers=PNG).status_code == 504
        assert service.stop() == module.FORCED


def test_a_second_signal_skips_the_notice(make_settings: MakeSettings) -> None:
    app = create_app(make_settings(stop_notice_s=500, stop_timeout_s=600, mode="monitor", port=0))
    # Not to the end of this process, which goes on to other tests.
    server = GatewayServer(app, app.state.gateway, force=lambda: None)

    async def main() -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert not serving.done()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 20)

    asyncio.run(main())


def test_the_collector_does_not_look_again_at_what_is_there_at_start(settings: dict[str, object]) -> None:
    """In a process of its own: what is frozen stays so."""
    told = "import gc, atexit; atexit.register(lambda: print(gc.get_freeze_count(), flush=True))\n"
    with Service(before=told, **{**settings, "stop_notice_s": 0}) as service:
        assert service.http.get("/readyz").status_code == 200
        assert service.stop() == 0
        assert service.process.stdout is not None
        frozen = int(service.process.stdout.readline())
    assert frozen > 100_000
