"""Made-up requests to every path of the OpenAPI document, valid and not: each answer has to be as it says.

Schemathesis makes them up and checks; schemathesis.toml says what is not checked, and why. `make fuzz` sends
FUZZ_EXAMPLES of them to every operation.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle

KEY = "root"
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
QUICK_PHASES = "fuzzing,stateful"
ALL_PHASES = "examples,coverage,fuzzing,stateful"  # coverage alone makes over a thousand requests
CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest.mark.timeout(3600)
def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    settings = {"bundle": write_bundle(tmp_path / "bundle"), "data_dir": tmp_path / "data", "device": "cpu",
                "detectors": ["spc"], "alpha": 0.4, "admin_key": KEY}  # fmt: skip
    with (tmp_path / "log").open("wb") as errors, Service(errors, **settings) as service:
        ours = {"X-API-Key": KEY}
        assert service.http.post("/calibrate", files=form(pngs(40)), headers=ours).status_code == 201
        assert service.http.post("/classify", files=form(pngs(20, seed=2)), headers=ours).status_code == 200
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
            f"{service.url}/openapi.json", "--header", f"X-API-Key: {KEY}", "--no-color", "--seed", "1",
            "--max-examples", EXAMPLES or "2", "--phases", ALL_PHASES if EXAMPLES else QUICK_PHASES,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
        assert service.http.get("/livez").status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()
