"""Ratios, percentiles and targets, worked out by hand."""

import json
from pathlib import Path

import pytest

from bench.gateway.cost import Counted, per_image
from bench.gateway.floor import FLOOR
from bench.gateway.race import Measured
from bench.gateway.report import Raced, grids, percentiles, plot, targets
from bench.gateway.servers import DEFENDED, FAST, LITSERVE, PLAIN, UNDEFENDED
from bench.timing import Spread


@pytest.fixture
def raced() -> Raced:
    hundred = [n / 1000 for n in range(1, 101)]  # 1 to 100 ms
    stages = {"loop": 0.6, "process": 4.0, "decode": 0.3, "queue": 2.0, "predict": 3.0, "detect": 0.0}
    rows = [
        Measured(UNDEFENDED, [220.0, 90.0], {0.7: 108.5}, {0.7: hundred}, {0.7: 0}, stages),
        Measured(DEFENDED, [100.0, 50.0], {0.7: 52.5}, {0.7: hundred}, {0.7: 2}),
        Measured(
            LITSERVE, [200.0, 100.0], {0.7: 105.0}, {0.7: hundred}, {0.7: 0}, {"loop": 1.0, "process": 5.0}
        ),
        Measured(PLAIN, skipped="no reason"),
        Measured(FLOOR, [300.0, 300.0], {0.7: 108.5}, {0.7: hundred[:51]}, {0.7: 0}),
    ]
    return Raced("tiny", rows, Spread(0.05, 0.05, 0.05))


def test_throughput_is_compared_round_by_round(raced: Raced) -> None:
    assert raced.throughput(UNDEFENDED) == Spread(1.0, pytest.approx(0.95), pytest.approx(1.05))
    assert raced.throughput(DEFENDED).median == 0.5  # type: ignore[union-attr]
    assert raced.throughput(PLAIN) is None
    assert raced.throughput(FAST) is None


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles([n / 1000 for n in range(101)]) == pytest.approx([50, 90, 99])


def test_targets_are_checked(raced: Raced) -> None:
    words = {what: (measured, verdict) for what, _, measured, verdict in targets(raced)}
    assert words[f"throughput of {UNDEFENDED} over LitServe"][1] == "met"
    assert words[f"throughput of {DEFENDED} over LitServe"][1] == "missed"
    assert words[f"throughput of {FAST} over LitServe"] == ("–", "not measured")
    assert words[f"p99 of {UNDEFENDED} at 70% load over one inference alone"] == ("2.0", "met")  # 99.01 / 50
    assert words["the same without any server, at the same rate"][0] == "1.0"  # 50.5 / 50
    assert words[f"HTTP, decode and batching of {UNDEFENDED}, CPU ms per image"] == ("0.90", "met")


def test_everything_is_in_the_tables(raced: Raced, tmp_path: Path) -> None:
    page = "\n".join(grid.markdown() for grid in grids(raced))
    for row in raced.rows:
        assert row.server in page
    assert "skipped: no reason" in page
    assert "| 52 | 50.5 | 90.1 | 99.0 | 2 |" in page
    content = json.loads(json.dumps(raced.to_json()))
    assert content["rows"][0]["latency_ms"]["0.7"]["p50"] == 50.5
    plot([raced], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_costs_are_differences_per_image() -> None:
    before, after = Counted({"loop": 1.0, "decode": 0.5}), Counted({"loop": 3.0, "decode": 0.9})
    assert per_image(before, after, 1000) == pytest.approx({"loop": 2.0, "decode": 0.4})
