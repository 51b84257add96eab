"""Peak memory of one contender in a process of its own: `python -m bench.memory FILE NAME`.

On Linux the peak is VmHWM, not `getrusage`: `ru_maxrss` survives exec, so a child would report its
parent's peak. The peak is reset once everything is loaded, and counted from the process as it was before,
with the tracer's code in it (the engine's alone would otherwise be charged with importing it).
"""

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.contenders import Workshop
from bench.recipes import Recipe
from bench.subjects import Rule, Subject, make_subject
from detectors.tracing import trace

__all__ = ["MeasureError", "peak_bytes"]

TIMEOUT = 300.0
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class MeasureError(Exception):
    """Raised where the process ended without an answer; the text is its last line."""


def peak_bytes(subject: Subject, name: str, batch: int, dtype: torch.dtype) -> int:
    """Bytes that the contender `name` needs at its peak, with the network, beyond an idle process.

    On CUDA: of the device's memory. Raises `MeasureError`.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.pt"
        torch.save(_job(subject, batch, dtype), file)
        command = [sys.executable, "-m", "bench.memory", str(file), name]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT,
                check=True, cwd=Path(__file__).parent.parent,
            )  # fmt: skip
            return int(json.loads(done.stdout.splitlines()[-1])["peak"])
        except subprocess.CalledProcessError as error:
            raise MeasureError((error.stderr.strip() or "it was killed").splitlines()[-1]) from error
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"no answer within {TIMEOUT:.0f} s") from error


def _job(subject: Subject, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    rule = subject.rule
    return {
        "recipe": asdict(subject.recipe),
        "device": str(subject.device),
        "dtype": str(dtype).removeprefix("torch."),
        "pools": {kind: pool[:batch].cpu() for kind, pool in subject.pools.items()},
        "fit": {"k": subject.k, "n": subject.n, "omega": subject.omega},
        "rule": None if rule is None else [rule.thresholds.cpu(), rule.stages],
    }


def measure(job: dict[str, Any], name: str) -> int:
    """Build the contender, run it twice, and return its peak in bytes; for a fresh process."""
    device = torch.device(job["device"])
    trace(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval(), torch.zeros(2, 1, 2, 2))
    pools = {kind: pool.to(device) for kind, pool in job["pools"].items()}
    idle = _now(device)
    subject = make_subject(Recipe(**job["recipe"]), device, pools, **job["fit"])
    if job["rule"] is not None:
        subject.rule = Rule(job["rule"][0].to(device), job["rule"][1])
    contender = Workshop(subject, getattr(torch, job["dtype"])).build(name)
    _reset(device)
    for _ in range(2):
        contender.call(pools[contender.traffic])
    return _peak(device) - idle


def _kibibytes(field: str) -> int:
    lines = STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def _now(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _kibibytes("VmRSS") * 1024 if STATUS.exists() else _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        return _kibibytes("VmHWM") * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset(device: torch.device) -> None:
    """Forget the peak so far; where the system does not allow it, loading counts too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        CLEAR.write_text("5")
    except OSError:
        return


if __name__ == "__main__":
    print(json.dumps({"peak": measure(torch.load(sys.argv[1], weights_only=True), sys.argv[2])}))
