"""The service as clients meet it: over a socket, many at once, killed and started again."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from app.assembly import build_firewall
from tests.app.conftest import MakeSettings
from tests.app.service import Service
from tests.app.tiny import encoded, form, pixels, pngs

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def kept(bundle: Path, tmp_path: Path) -> dict[str, object]:
    """Settings of a service whose data outlives it."""
    return {
        "bundle": bundle,
        "data_dir": tmp_path / "data",
        "device": "cpu",
        "alpha": 0.4,
        "detectors": ["spc"],
    }


def test_every_response_is_its_own_images_under_concurrency(
    kept: dict[str, object], make_settings: MakeSettings
) -> None:
    """60 clients at once, each with one to five images that nobody else sends, some of them broken, some
    clients gone before their answer: confidences tell whose image was answered."""
    images = pixels(180, seed=3)
    classifier = build_firewall(make_settings()).classifier
    logits = classifier.logits(torch.from_numpy(images / np.float32(255))[:, None].float())
    expected = logits.softmax(1).amax(1).tolist()
    cuts = iter(np.cumsum([n % 5 + 1 for n in range(60)]))
    groups = np.split(np.arange(180), [next(cuts) for _ in range(59)])

    async def ask(http: httpx.AsyncClient, number: int, group: np.ndarray) -> int:
        files = form([*(encoded(images[n]) for n in group), *([b"broken"] if number % 3 == 0 else [])])
        if number % 7 == 0:
            with pytest.raises(httpx.TimeoutException):
                await http.post("/classify", files=files, timeout=0.001)
            return 0
        body = (await http.post("/classify", files=files)).json()
        confidences = [r["prediction"]["confidence"] for r in body["results"] if r["prediction"]]
        assert confidences == pytest.approx([expected[n] for n in group], rel=1e-4)
        assert [r["verdict"] is None for r in body["results"]] == [False] * len(group) + [True] * (
            number % 3 == 0
        )
        return len(group)

    async def main(url: str) -> int:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            return sum(await asyncio.gather(*(ask(http, n, group) for n, group in enumerate(groups))))

    with Service(**kept, mode="monitor", batch_delay_ms=5) as service:
        assert asyncio.run(main(service.url)) > 140
        text = service.http.get("/metrics").text
        batches = next(
            line for line in text.splitlines() if line.startswith("triggerwall_batch_images_count")
        )
        assert float(batches.split()[1]) < 50  # requests did share batches
        assert service.stop() == 0


def test_a_refused_upload_is_answered(kept: dict[str, object]) -> None:
    """A client that asks first (`Expect: 100-continue`) is told 413 without sending anything."""
    with Service(**kept, max_body_bytes=10_000) as service:
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(
                b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
                b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n"
            )
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        assert service.http.get("/livez").status_code == 200


def test_sigterm_answers_what_was_accepted(kept: dict[str, object]) -> None:
    with Service(**kept, mode="monitor", batch_delay_ms=400) as service:
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(service.http.post("/classify", content=pngs(1)[0], headers=PNG).status_code)

        client = threading.Thread(target=ask)
        client.start()
        time.sleep(0.15)
        service.stop()
        client.join()
    assert statuses == [200]


def test_a_client_that_goes_away_in_the_middle_is_no_error_of_ours(kept: dict[str, object]) -> None:
    with Service(**kept) as service:
        host, port = service.url.removeprefix("http://").split(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(
                    b"POST /calibrate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 900\r\n"
                    b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
                )
                time.sleep(0.1)
        for _ in range(100):
            text = service.http.get("/metrics").text
            if 'status="499"} 3.0' in text:
                break
            time.sleep(0.05)
        assert 'route="/calibrate",status="499"} 3.0' in text
        assert "internal-error" not in text
