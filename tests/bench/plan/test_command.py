"""`triggerwall plan` as it is called."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from bench.plan.recorded import write
from bench.plan.service import Front, ServiceTimes

FAST = ServiceTimes("undefended", 1, ((1.0, 0.002), (32.0, 0.020)), front=Front(0.001, 0.001))
SLOW = ServiceTimes("default", 17, ((1.0, 0.020), (32.0, 0.400)), front=Front(0.001, 0.001))


@pytest.fixture
def measured(tmp_path: Path) -> str:
    write([FAST, SLOW], tmp_path / "times.json")
    return str(tmp_path / "times.json")


def plan(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *words], env={"COLUMNS": "80", "TERM": "dumb"})
    return result.exit_code, result.output


def test_a_plan_from_kept_measurements(measured: str) -> None:
    code, said = plan("--rate", "600/s", "--p99", "150ms", "--measured", measured)
    assert code == 0
    assert "600 images/s, p99 within 150 ms" in said
    assert "TRIGGERWALL_BATCH_ROWS=1024 TRIGGERWALL_BATCH_DELAY_MS=2" in said
    tables = [line for line in said.splitlines() if "TRIGGERWALL" not in line and "Note" not in line]
    assert max(map(len, tables)) <= 80
    assert "…" not in said


def test_json_says_the_same(measured: str) -> None:
    code, said = plan("--rate", "36000/min", "--p99", "0.15s", "--measured", measured, "--json")
    assert code == 0
    found = json.loads(said)
    assert found["aim"] == {"rate": 600.0, "p99": 0.15, "images": 1, "balancer": "random"}
    undefended, default = found["plans"]
    assert undefended["replicas"] == 1
    assert default["replicas"] >= 600 * 0.400 / 32  # more than the load itself
    assert default["p99"] <= 0.15
    assert 0 < default["busy"] < 1


def test_a_preset_out_of_reach_has_no_plan_and_the_others_have(measured: str) -> None:
    code, said = plan("--rate", "600/s", "--p99", "15ms", "--measured", measured)
    assert code == 1
    assert "none" in said
    assert "default: one request alone takes 22 ms" in " ".join(said.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rate", "fast", "--p99", "1s"], "like 2000/s"),
        (["--rate", "1/s", "--p99", "1"], "like 100ms"),
        (["--rate", "1/s", "--p99", "1s", "--balancer", "magic"], "random, round-robin"),
        (["--rate", "1/s", "--p99", "1s", "--measured", "nowhere.json"], "cannot be read"),
        (["--rate", "1/s", "--p99", "1s", "--measured", "nowhere.json", "--check"], "leave --measured out"),
        (["--rate", "1/s", "--p99", "1s", "--bundle", "models/demo"], "--bundle needs --data"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(words: list[str], told: str) -> None:
    code, said = plan(*words)
    assert code == 2
    assert told in " ".join(said.split())


def test_a_preset_that_was_not_measured_is_said(measured: str) -> None:
    code, said = plan("--rate", "1/s", "--p99", "1s", "--measured", measured, "--preset", "psc")
    assert code == 2
    assert "there are: undefended, default" in said
