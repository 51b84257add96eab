"""Every server of the race: a process on loopback, the request it is sent, and how to tell that it is up."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.gateway.load import as_request

__all__ = [
    "DEFENDED",
    "LITSERVE",
    "NAMES",
    "PLAIN",
    "UNDEFENDED",
    "NoServer",
    "Server",
    "gateway",
    "litserve_python",
    "make",
]

UNDEFENDED, MONITOR, DEFENDED, FAST, ALL = (
    "triggerwall, undefended", "triggerwall, monitor", "triggerwall, enforce", "triggerwall, enforce, fast",
    "triggerwall, enforce, three detectors",
)  # fmt: skip
LITSERVE, PLAIN = "litserve, undefended", "plain FastAPI, undefended"
NAMES = (UNDEFENDED, MONITOR, DEFENDED, FAST, ALL, LITSERVE, PLAIN)
SETTINGS: dict[str, dict[str, str]] = {
    UNDEFENDED: {"mode": "monitor", "detectors": "psc"},  # and never calibrated: nothing but the prediction
    MONITOR: {"mode": "monitor", "detectors": "psc"},
    DEFENDED: {"mode": "enforce", "detectors": "psc"},
    FAST: {"mode": "enforce", "detectors": "psc", "psc_precision": "bfloat16", "psc_channels_last": "true",
           "psc_fold": "true"},
    ALL: {"mode": "enforce", "detectors": "profile,psc,spc"},
}  # fmt: skip
BATCH, DELAY_MS = 32, 2  # LitServe's largest batch and wait; the gateway's defaults are alike
START_S = 180
ROOT = Path(__file__).parents[2]


class NoServer(Exception):  # noqa: N818  (it says what is missing)
    """Raised where a server cannot be started; the text says why."""


@dataclass
class Server:
    """Started by `with`, stopped at its end. `calibrates`: benign images are sent before it is measured."""

    name: str
    command: Sequence[str]
    port: int
    path: str
    health: str
    variables: dict[str, str] = field(default_factory=dict)
    calibrates: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("triggerwall")

    def request(self, image: bytes) -> bytes:
        """The request that classifies the PNG `image`."""
        if self.name == LITSERVE:
            body = json.dumps({"image": base64.b64encode(image).decode()}).encode()
            return as_request(self.url, self.path, "application/json", body)
        return as_request(self.url, self.path, "image/png", image)

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRIGGERWALL_")}
        ours = {"PYTHONPATH": str(ROOT), "TRIGGERWALL_DATA_DIR": self._folder.name, **self.variables}
        self._log = (Path(self._folder.name) / "server.log").open("w+b")
        self.process = subprocess.Popen(
            self.command, env={**clean, **ours}, stdout=self._log, stderr=self._log, cwd=self._folder.name,
            start_new_session=True,
        )  # fmt: skip
        self._wait()
        return self

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + self.health, timeout=5)
                return
            time.sleep(0.2)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")[-1500:]
        self.__exit__()
        raise NoServer(f"{self.name} did not start: {said}")

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 15)  # LitServe's workers are in the same group
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self._log.close()
        self._folder.cleanup()


def make(name: str, bundle: Path, litserve: Path | None) -> Server:
    """The server called `name` in front of `bundle`. Raises `NoServer`."""
    port = free_port()
    if name == LITSERVE:
        if litserve is None:
            raise NoServer("LitServe is not installed: run with --install-litserve")
        command = [
            str(litserve),
            "-m",
            "bench.gateway.litserve_server",
            str(bundle),
            str(port),
            str(BATCH),
            str(DELAY_MS),
        ]
        return Server(name, command, port, "/predict", "/health")
    if name == PLAIN:
        command = [sys.executable, "-m", "bench.gateway.plain_server", str(bundle), str(port)]
        return Server(name, command, port, "/predict", "/health")
    return gateway(name, bundle, SETTINGS[name], calibrates=name != UNDEFENDED)


def gateway(
    name: str, bundle: Path, settings: Mapping[str, str], *, calibrates: bool, device: str = "cpu"
) -> Server:
    """A gateway in front of `bundle`, with these settings besides the defaults."""
    variables = {f"TRIGGERWALL_{key.upper()}": value for key, value in settings.items()}
    variables["TRIGGERWALL_DEVICE"] = device
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "bench.gateway.serve",
        "serve",
        "--bundle",
        str(bundle),
        "--port",
        str(port),
    ]
    return Server(name, command, port, "/classify", "/livez", variables, calibrates=calibrates)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def litserve_python(install: bool) -> Path | None:
    """The Python of LitServe's own environment, which sees PyTorch and the rest of ours behind its own
    packages; None where there is none and none may be made. Raises `NoServer` where making it fails."""
    home = ROOT / ".venvs" / "litserve"
    python = home / "bin" / "python"
    if (home / "installed").exists():
        return python
    if not install:
        return None
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "litserve"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoServer(f"LitServe cannot be installed: {done.stderr[-500:]}")
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    (home / "installed").touch()
    return python
