import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.arithmetic import error_of
from bench.contenders import BASELINES, EAGER, EARLY, FULL, NAMES, Style, Workshop
from bench.memory import peak_bytes
from bench.plot import NoPlot, plot
from bench.results import Report, Row
from bench.runner import Plan, bench_subject
from bench.selection import Options, choose
from bench.subjects import Subject, learn
from bench.tables import grids, markdown
from bench.targets import check_targets
from bench.timing import Budget
from lab.data import LabError


def silent(*_: object) -> None:
    """No progress bar."""


PLAN = Plan(batches=(1, 4), budget=Budget(seconds=0.0, least=2), sweep=True)


@pytest.fixture(scope="module")
def report(subject: Subject) -> Report:
    made = Report({"device": "cpu"})
    bench_subject(subject, PLAN, made, silent)
    return made


def test_there_is_a_complete_row_for_everything(report: Report) -> None:
    assert [(row.batch, row.contender) for row in report.rows] == [(b, n) for b in (1, 4) for n in NAMES]
    for row in report.rows:
        assert row.skipped is None
        for ratio in (report.time_ratio(row), report.time_ratio(row, EAGER)):
            assert ratio is not None
            assert 0 < ratio.low <= ratio.median <= ratio.high
        if "onnx" in row.contender:  # ONNX Runtime tells neither
            assert (report.flops_ratio(row), report.resident_ratio(row)) == (None, None)
        else:
            assert report.flops_ratio(row) >= 1  # type: ignore[operator]
            assert report.resident_ratio(row) >= 1  # type: ignore[operator]


def test_ratios_of_multiply_adds(report: Report) -> None:
    for name in BASELINES:
        row = report.row("tiny", name)
        assert row is not None
        assert report.flops_ratio(row) == 3.0


def test_the_sweep_agrees_with_the_race(report: Report) -> None:
    row = report.row("tiny", FULL)
    assert row is not None
    found = report.sweep["tiny"]
    assert found["by_n"][2] == found["by_k"][2] == pytest.approx(report.flops_ratio(row))
    assert list(found["by_n"].values()) == sorted(found["by_n"].values())


def test_what_cannot_run_says_why(subject: Subject) -> None:
    made = Report({})
    bare = Subject(**{**vars(subject), "rule": None})
    bench_subject(bare, replace(PLAN, batches=(1,), sweep=False), made, silent)
    reasons = {row.contender: row.skipped for row in made.rows if row.skipped}
    assert "--bundle" in str(reasons[EARLY["benign"]])
    assert EAGER not in reasons
    assert "skipped" in markdown(made)


def test_written_as_tables_json_and_picture(report: Report, tmp_path: Path) -> None:
    page = markdown(report)
    assert all(name in page for name in NAMES)
    assert len(list(grids(report))) == 6  # two batch sizes, two sweeps, errors, targets
    content = json.loads(json.dumps(report.to_json()))
    assert content["rows"][1]["flops_ratio"] == 3.0
    plot(report, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_no_plot_without_matplotlib(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoPlot, match="demo"):
        plot(report, tmp_path / "bench.png")


def test_targets_are_checked_on_the_stated_network_only(report: Report) -> None:
    assert {checked.met for checked in check_targets(report)} == {None}
    made = Report({})
    made.subjects["r"] = {"architecture": "zoo:resnet18", "size": [32, 32], "k": 11, "n": 5}
    made.rows = [
        Row("r", 32, EAGER, flops=10.0, resident=100, seconds=[1.0, 2.0]),
        Row("r", 32, FULL, flops=39.0, resident=100, seconds=[4.2, 8.4]),
    ]
    found = {checked.what: (checked.value, checked.met) for checked in check_targets(made)}
    assert found["FLOPs of the full score"] == (3.9, True)
    assert found["time of the full score, batch 32"] == (4.2, False)
    assert found["resident parameters"] == (1.0, True)
    assert found["time of the full score, batch 1"] == (None, None)


def test_thresholds_and_stages_are_learnt(subject: Subject) -> None:
    engine = Workshop(subject).engine("eager")
    images = subject.pools["benign"]
    paper, budget = learn(engine, images, 4, None), learn(engine, images, 4, 0.5)
    assert paper.thresholds.tolist() == [0.9] * 4
    assert budget.thresholds.shape == (4,)
    assert sorted(number for stage in budget.stages for number in stage) == [0, 1]


@pytest.mark.parametrize("style", ["packed", "fast"])
def test_other_arithmetic_is_compared(subject: Subject, style: Style) -> None:
    assert subject.rule is not None
    same = error_of(style, Workshop(subject, torch.float32), subject.rule)
    assert same["benign"]["images"] == 8
    assert same["poisoned"]["predictions"] == same["poisoned"]["verdicts"] == 0
    assert same["benign"]["score"]["largest"] < 1e-4


def test_peak_memory_comes_from_a_process_of_its_own(subject: Subject) -> None:
    assert 0 < peak_bytes(subject, EAGER, 4, torch.float32) < 2**28


def test_networks_are_chosen_by_name() -> None:
    assert [recipe.label for recipe in choose(Options(only=("resnet18",)))] == ["resnet18"]
    assert len(choose(Options(quick=True))) == 3
    with pytest.raises(LabError, match="resnet19"):
        choose(Options(only=("resnet19",)))
    with pytest.raises(LabError, match="--data"):
        choose(Options(bundle=Path("somewhere")))
