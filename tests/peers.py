"""Other people's software that the tests speak to, each in a virtual environment of its own.

Their pins exclude ours. What exists under `.venvs/` is used; with PEERS=1 in the environment what is missing
is made first (a minute and some hundred megabytes each); else the test is skipped, with the reason.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["PATIENT", "python_with"]

PATIENT = pytest.mark.timeout(900)
"""For tests that may have to install something first."""

HOME = Path(__file__).parents[1] / ".venvs"
PATIENCE_S = 800


def python_with(name: str, *requirements: str) -> Path:
    """The Python of the environment `name`, in which `requirements` are installed. Skips where there is
    none and none may or can be made."""
    python, done = HOME / name / "bin" / "python", HOME / name / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == "\n".join(requirements):
        return python
    if os.environ.get("PEERS") != "1":
        pytest.skip(f"PEERS=1 installs {' '.join(requirements)} into .venvs/{name} and runs this test")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(HOME / name)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
    ):
        made = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if made.returncode:
            lines = made.stderr.strip().splitlines() or ["no reason was given"]
            pytest.skip(f"{' '.join(requirements)} cannot be installed: {lines[-1]}")
    done.write_text("\n".join(requirements), encoding="utf-8")
    return python
