"""The race as a table, a plot and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.gateway.cost import STAGES
from bench.gateway.floor import FLOOR
from bench.gateway.race import Measured
from bench.gateway.servers import DEFENDED, FAST, LITSERVE, UNDEFENDED
from bench.plot import NoPlot
from bench.tables import Grid, ranged
from bench.timing import Spread, spread

__all__ = ["Raced", "grids", "percentiles", "plot", "targets"]

PERCENTILES = (50, 90, 99)
REFERENCE_LOAD = 0.7  # of a server's capacity: where its p99 is judged
OVERHEAD_MS, P99_OVER_SINGLE = 1.0, 3.0


class Raced:
    """The rows of one subject, and the `single` inference of its bare network in seconds."""

    def __init__(self, label: str, rows: Sequence[Measured], single: Spread) -> None:
        self.label, self.rows, self.single = label, rows, single

    def row(self, server: str) -> Measured | None:
        """None where it was not measured."""
        return next((row for row in self.rows if row.server == server and row.capacity), None)

    def throughput(self, server: str, over: str = LITSERVE) -> Spread | None:
        """Capacity over that of `over`, round by round."""
        ours, theirs = self.row(server), self.row(over)
        if ours is None or theirs is None or not all(theirs.capacity):
            return None
        return spread([a / b for a, b in zip(ours.capacity, theirs.capacity, strict=True)])

    def to_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "single_ms": 1000 * self.single.median,
            "rows": [{**asdict(row), "latency_ms": _latencies(row), "latency": None} for row in self.rows],
        }


def _latencies(row: Measured) -> dict[str, dict[str, float]]:
    return {
        f"{share:g}": {
            f"p{which}": value for which, value in zip(PERCENTILES, percentiles(found), strict=True)
        }
        for share, found in row.latency.items()
        if found
    }


def percentiles(latencies: Sequence[float]) -> list[float]:
    """p50, p90 and p99 in milliseconds."""
    values: list[float] = (1000 * np.percentile(latencies, PERCENTILES)).tolist()
    return values


def grids(raced: Raced) -> Iterator[Grid]:
    """Throughput, latency by load, where the time goes, and the targets."""
    lines: list[tuple[str, ...]] = [(row.server, *_throughput(raced, row)) for row in raced.rows]
    yield Grid(
        f"{raced.label}: throughput, closed loop",
        ("server", "images/s", "over LitServe", "over plain FastAPI"),
        lines,
    )
    shares = sorted({share for row in raced.rows for share in row.latency})
    for share in shares:
        yield Grid(
            f"{raced.label}: latency at {share:.0%} of each server's capacity, open loop",
            ("server", "images/s offered", *(f"p{which}, ms" for which in PERCENTILES), "not answered 200"),
            [_latency_line(row, share) for row in raced.rows if row.latency.get(share)],
        )
    yield Grid(
        f"{raced.label}: where the time of an image goes, ms, at capacity",
        ("server", *STAGES),
        [
            (row.server, *(f"{row.stages[key]:.2f}" if key in row.stages else "–" for key in STAGES.values()))
            for row in raced.rows
            if row.stages
        ],
    )
    yield Grid(f"{raced.label}: targets", ("what", "target", "measured", "verdict"), list(targets(raced)))


def _throughput(raced: Raced, row: Measured) -> tuple[str, str, str]:
    if row.skipped is not None:
        return f"skipped: {row.skipped}", "–", "–"
    plain = next((other.server for other in raced.rows if other.server.startswith("plain")), LITSERVE)
    rate = spread(row.capacity)
    return (
        f"{rate.median:.0f} ({rate.low:.0f}–{rate.high:.0f})",
        ranged(raced.throughput(row.server)),
        ranged(raced.throughput(row.server, plain)),
    )


def _latency_line(row: Measured, share: float) -> tuple[str, ...]:
    figures = (f"{value:.1f}" for value in percentiles(row.latency[share]))
    return (row.server, f"{row.offered[share]:.0f}", *figures, str(row.failed[share]))


def targets(raced: Raced) -> Iterator[tuple[str, str, str, str]]:
    """What was aimed at beside what was measured."""
    for server, least in ((UNDEFENDED, 1.0), (DEFENDED, 0.6), (FAST, 0.8)):
        rate = raced.throughput(server)
        met = None if rate is None else rate.median >= least
        yield f"throughput of {server} over LitServe", f"≥ {least:g}", ranged(rate), _word(met)
    row = raced.row(UNDEFENDED)
    if row is None:
        return
    if found := _p99_over_single(raced, UNDEFENDED):
        yield (
            f"p99 of {UNDEFENDED} at {REFERENCE_LOAD:.0%} load over one inference alone",
            f"≤ {P99_OVER_SINGLE:g}", f"{found:.1f}", _word(found <= P99_OVER_SINGLE),
        )  # fmt: skip
    if found := _p99_over_single(raced, FLOOR):
        yield "the same without any server, at the same rate", "–", f"{found:.1f}", "the least possible"
    overhead = row.stages["loop"] + row.stages["decode"]
    yield (
        f"HTTP, decode and batching of {UNDEFENDED}, CPU ms per image",
        f"< {OVERHEAD_MS:g}", f"{overhead:.2f}", _word(overhead < OVERHEAD_MS),
    )  # fmt: skip


def _p99_over_single(raced: Raced, server: str) -> float | None:
    """Of `server` at the load where p99 is judged; None where it was not measured there."""
    row = raced.row(server)
    latencies = row and row.latency.get(REFERENCE_LOAD)
    return percentiles(latencies)[2] / (1000 * raced.single.median) if latencies else None


def _word(met: bool | None) -> str:
    return {True: "met", False: "missed", None: "not measured"}[met]


def plot(all_raced: Sequence[Raced], file: Path) -> None:
    """Percentiles of latency by offered rate, a panel a subject. Raises `NoPlot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlot("no plot: matplotlib is not installed (pip install '.[demo]')") from error
    figure = Figure(figsize=(6.4 * len(all_raced), 5.2), layout="constrained")
    axes = figure.subplots(1, len(all_raced), squeeze=False)[0]
    for axis, raced in zip(axes, all_raced, strict=True):
        for number, row in enumerate(raced.rows):
            shares = [share for share in sorted(row.latency) if row.latency[share]]
            rates = [row.offered[share] for share in shares]
            for which, style in ((0, "-"), (2, "--")):
                values = [percentiles(row.latency[share])[which] for share in shares]
                label = f"{row.server}, p{PERCENTILES[which]}"
                axis.plot(rates, values, style, color=f"C{number}", marker="o", markersize=3, label=label)
        axis.axhline(1000 * raced.single.median, color="grey", linewidth=0.8, label="one inference alone")
        axis.set(title=raced.label, xlabel="images/s offered", ylabel="latency, ms", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=6)
    figure.savefig(file, dpi=120)
