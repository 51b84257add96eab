"""A real MLServer with one of our networks in it: a process, from a virtual environment of its own."""

import json
import os
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Self

import httpx

from tests.peers import python_with

__all__ = ["MODEL", "MLServer"]

MODEL = "far"
ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class MLServer:
    """Serves `bundle` as the model `far` for the length of the `with` block. Skips the test where MLServer
    is not there, see `tests.peers`."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self.python = python_with("mlserver", "mlserver==1.7.1")
        port = free_port()
        self.url, self.folder = f"http://127.0.0.1:{port}", folder
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        self._write("settings", {**ports, "host": "127.0.0.1", "parallel_workers": 0})
        runtime = "tests.mlserver_runtime.Runtime"
        self._write(
            "model-settings",
            {"name": MODEL, "implementation": runtime, "parameters": {"uri": str(bundle.resolve())}},
        )

    def _write(self, name: str, content: dict[str, object]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "BORROWED_PACKAGES": sysconfig.get_path("purelib"),  # torch, which MLServer's own has not
        }
        self.log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(
            [self.python, "-m", "mlserver.cli.main", "start", str(self.folder)],
            env=environment, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._wait()
        return self

    def _wait(self) -> None:
        for _ in range(600):
            assert self.process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")
            try:
                if httpx.get(f"{self.url}/v2/models/{MODEL}/ready").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text(encoding="utf-8"))

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
