"""The run as one picture: time by batch size for every network, and cost by n and by k."""

from pathlib import Path
from typing import Any

from bench.contenders import EAGER, NAMES
from bench.results import Report

__all__ = ["NoPlot", "plot"]

LINES = {"packed": ":", "fast": "--"}


class NoPlot(Exception):  # noqa: N818  (it says what is missing)
    """Raised where matplotlib is not installed."""


def plot(report: Report, file: Path) -> None:
    """Write a PNG. Raises `NoPlot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NoPlot("no plot: matplotlib is not installed (pip install '.[demo]')") from error
    networks = list(report.subjects)
    panels = max(len(networks), 1) + (2 if report.sweep else 0)
    figure = Figure(figsize=(4.8 * panels, 5.6), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    handles: dict[str, Any] = {}
    for axis, network in zip(axes, networks, strict=False):
        time_panel(axis, report, network, handles)
    if report.sweep:
        sweep_panel(axes[-2], report, "n")
        sweep_panel(axes[-1], report, "k")
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(file, dpi=120)


def time_panel(axis: Any, report: Report, network: str, handles: dict[str, Any]) -> None:
    """Time over undefended eager float32 by batch size, with quartiles; one colour a contender."""
    for number, name in enumerate(NAMES):
        rows = [r for r in report.rows if (r.network, r.contender) == (network, name)]
        points = [(row.batch, ratio) for row in rows if (ratio := report.time_ratio(row, EAGER))]
        if not points:
            continue
        batches, ratios = zip(*sorted(points), strict=True)
        handles[name] = axis.errorbar(
            batches, [r.median for r in ratios],
            [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]],
            color=f"C{number % 10}", linestyle=LINES.get(name.rpartition(", ")[2], "-"), marker="o",
            markersize=3, capsize=2,
        )  # fmt: skip
    axis.set(title=network, xlabel="batch size", ylabel="time / undefended, eager float32")
    axis.set(xscale="log", yscale="log")
    batches_run = sorted({row.batch for row in report.rows if row.network == network})
    axis.set_xticks(batches_run, [str(batch) for batch in batches_run], minor=False)
    axis.set_yticks([0.5, 1, 2, 4, 8, 16], ["0.5", "1", "2", "4", "8", "16"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def sweep_panel(axis: Any, report: Report, name: str) -> None:
    for network, found in report.sweep.items():
        series = found[f"by_{name}"]
        axis.plot(list(series), list(series.values()), marker="o", markersize=3, label=f"{network}, engine")
        passes = [1 + (key if name == "n" else found["n"]) for key in series]
        axis.plot(list(series), passes, linestyle=":", label=f"{network}, n + 1 passes")
    axis.set(title=f"full score by {name}", xlabel=name, ylabel="FLOPs / undefended")
    axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
