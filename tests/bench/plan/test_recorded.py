"""Measurements that were kept, and those of `triggerwall bench`."""

import json
from pathlib import Path

import pytest

from bench.plan.recorded import read, write
from bench.plan.service import Front, ServiceTimes
from bench.plan.units import PlanError
from bench.results import Report, Row

SERVICES = [ServiceTimes("psc", 6, ((1.0, 0.01), (7.5, 0.02)), (0.9, 1.1), Front(0.001, 0.0005))]


def bench_json(folder: Path, *networks: str) -> Path:
    report = Report({}, {name: {"n": 5} for name in networks})
    for name in networks:
        report.rows += [
            Row(name, 8, "undefended", seconds=[0.008, 0.012]),
            Row(name, 1, "undefended", seconds=[0.002, 0.004]),
            Row(name, 1, "engine", seconds=[0.010]),
            Row(name, 1, "copies", seconds=[0.020]),
            Row(name, 1, "early exit, benign", skipped="needs a trained network"),
        ]
    (folder / "bench.json").write_text(json.dumps(report.to_json()))
    return folder


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    write(SERVICES, tmp_path / "new" / "times.json")
    assert read(tmp_path / "new" / "times.json", None, 0.5) == SERVICES


def test_bench_json_gives_what_can_be_served(tmp_path: Path) -> None:
    plain, full = read(bench_json(tmp_path, "resnet18"), None, 0.001)
    assert (plain.preset, plain.rows, plain.points) == ("undefended", 1, ((1.0, 0.003), (8.0, 0.010)))
    assert plain.spread == pytest.approx((2 / 3, 4 / 3))
    assert (full.preset, full.rows, full.points) == ("engine", 6, ((1.0, 0.010),))
    assert plain.front == full.front == Front(0.001)


def test_one_of_several_networks_is_chosen(tmp_path: Path) -> None:
    folder = bench_json(tmp_path, "resnet18", "resnet20")
    with pytest.raises(PlanError, match="--network: resnet18, resnet20"):
        read(folder, None, 0.001)
    assert len(read(folder, "resnet20", 0.001)) == 2
    with pytest.raises(PlanError, match="resnet50 was not measured"):
        read(folder, "resnet50", 0.001)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"service_times": [{}]}', '{"subjects": {}, "rows": []}', "1"]
)
def test_what_holds_no_measurements_is_said(tmp_path: Path, content: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(PlanError, match=r"x\.json"):
        read(file, None, 0.001)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot be read.*triggerwall bench --out"):
        read(tmp_path / "missing.json", None, 0.001)
