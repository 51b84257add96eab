"""A gateway of the demo's own: a real process, spoken to over HTTP like any other."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from lab.data import LabError

__all__ = ["classify", "running_gateway"]

START_LIMIT_S = 90
BATCH = 32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_gateway(bundle: Path) -> Iterator[httpx.Client]:
    """Start `triggerwall serve` at its defaults on a free port with an empty store; stop it at the end."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("triggerwall")), "serve", "--bundle", str(bundle)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIGGERWALL_")}
    with TemporaryDirectory() as folder:
        log = Path(folder) / "gateway.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                env={**clean, "TRIGGERWALL_DATA_DIR": folder},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as http:
                _wait(http, process, log)
                yield http
        finally:
            process.terminate()
            process.wait(30)


def _wait(http: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if http.get("/livez").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise LabError(f"the gateway did not start:\n{log.read_text(errors='replace')[-2000:]}")


def classify(http: httpx.Client, pngs: Sequence[bytes], *, full: bool = False) -> list[dict[str, Any]]:
    """The gateway's result for every image, in order, some images a request."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(pngs), BATCH):
        parts = [
            ("images", (f"{n}.png", png, "image/png")) for n, png in enumerate(pngs[start : start + BATCH])
        ]
        answer = http.post("/classify", files=parts, params={"full": "true"} if full else None)
        if answer.is_error:
            raise LabError(f"the gateway answered {answer.status_code}: {answer.text}")
        results += answer.json()["results"]
    return results
