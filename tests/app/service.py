"""A real gateway: uvicorn in a process of its own, on a free port."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, Self

import httpx

RUN = """
import json, logging, socket, sys
import torch
torch.set_num_threads(1)
from app.main import create_app
from app.serving.server import run
from app.settings import Settings
settings = Settings(**json.loads(sys.argv[1]))
listener = socket.socket()
listener.bind((settings.host, 0))
print(listener.getsockname()[1], flush=True)
logging.basicConfig(level="WARNING")
service = create_app(settings)
run(service, service.state.gateway, [listener])
"""


class Service:
    """Starts with the `with` block and is killed at its end; `stop` ends it politely."""

    def __init__(self, errors: IO[bytes] | None = None, before: str = "", **settings: Any) -> None:
        """`errors` takes what the process writes to its standard error; it runs the code `before` first."""
        self._errors, self._code = errors, before + RUN
        self._settings = json.dumps(
            {name: str(v) if isinstance(v, Path) else v for name, v in settings.items()}
        )

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self._code, self._settings],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self._wait()
        return self

    def _wait(self) -> None:
        for _ in range(600):
            try:
                self.http.get("/livez")
                return
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the gateway did not come up")

    def kill(self) -> None:
        """SIGKILL: nothing gets a chance to be tidied up."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.kill()
