"""A real Ray cluster of one machine, from a virtual environment of its own, with Triggerwall on Ray Serve."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.mlserver import free_port
from tests.peers import python_with

__all__ = ["ADMIN", "PATIENCE_S", "RayCluster", "pinned"]

ROOT = Path(__file__).parents[1]
PATIENCE_S = 240.0
ADMIN = {"X-API-Key": "the admin's key"}


def pinned() -> list[str]:
    """What the extra `ray` pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [each for each in project["optional-dependencies"]["ray"] if "==" in each]


class RayCluster:
    """Runs for the length of the `with` block; `deploy` puts Triggerwall on it, and changes it later.

    Skips the test where Ray is not there, see `tests.peers`.
    """

    def __init__(self, **environment: str) -> None:
        self.python = python_with("ray", *pinned())
        self._borrow()
        self.port, self.dashboard = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRIGGERWALL_")},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "TRIGGERWALL_ADMIN_KEY": ADMIN["X-API-Key"],
            **environment,
        }

    def _borrow(self) -> None:
        """Torch and the like, which Ray's environment has not, after what it has."""
        packages = next(self.python.parents[1].glob("lib/python*/site-packages"))
        (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets lie in it: their paths must be short
        self.log = (self.folder / "log").open("w+")
        ports = {
            "port": free_port(),
            "dashboard-port": self.dashboard,
            "ray-client-server-port": free_port(),
            "dashboard-agent-listen-port": free_port(),
        }
        options = [f"--{name}={value}" for name, value in ports.items()]
        self.process = subprocess.Popen(
            [
                *self._program("ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=8",
                "--object-store-memory=100000000", f"--temp-dir={self.folder}/ray", *options,
            ],
            env=self.environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        return self

    def _program(self, name: str) -> list[str]:
        return [str(self.python), str(self.python.parent / name)]

    def deploy(self, scorers: int | dict[str, Any], **settings: Any) -> None:
        """As `serve deploy deploy/ray/serve.yaml` does it; returns when Ray has taken the order. `scorers` is
        their number, or Ray's `autoscaling_config`."""
        config = yaml.safe_load((ROOT / "deploy" / "ray" / "serve.yaml").read_text(encoding="utf-8"))
        config["http_options"]["port"] = self.port
        (application,) = config["applications"]
        application["args"] = settings
        for each in application["deployments"]:
            each["ray_actor_options"] = {"num_cpus": 0.1}
            each["num_replicas"] = 1
            if each["name"] == "scorer" and isinstance(scorers, int):
                each["num_replicas"] = scorers
            elif each["name"] == "scorer":
                del each["num_replicas"]
                each["autoscaling_config"] = scorers
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        address = f"http://127.0.0.1:{self.dashboard}"
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:  # the cluster may still be starting
            done = subprocess.run(
                [*self._program("serve"), "deploy", "--address", address, str(file)],
                env=self.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return
            time.sleep(1)
        raise TimeoutError(done.stdout + done.stderr)

    def status(self) -> dict[str, Any]:
        """Of the application, as Ray tells it."""
        found = httpx.get(
            f"http://127.0.0.1:{self.dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"},
            timeout=120,
        )
        status: dict[str, Any] = found.raise_for_status().json()["applications"]["triggerwall"]
        return status

    def until_running(self, scorers: int) -> None:
        """Wait for so many scorers, of the last configuration, and an ingress that answers."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            status = self.status()
            if status["status"] == "DEPLOY_FAILED":
                raise RuntimeError(status["message"])
            replicas = status["deployments"].get("scorer", {}).get("replicas", [])
            running = [each["state"] for each in replicas] == ["RUNNING"] * scorers
            if status["status"] == "RUNNING" and running:
                return
            time.sleep(0.3)
        raise TimeoutError(str(status))

    def scorers(self) -> list[int]:
        """Their process ids."""
        replicas = self.status()["deployments"]["scorer"]["replicas"]
        return [each["pid"] for each in replicas if each["state"] == "RUNNING"]

    def _session(self) -> list[int]:
        found = []
        for pid in (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == self.process.pid:
                    found.append(pid)
        return found

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in self._session():  # what Ray started has groups of its own, and may outlive it
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
