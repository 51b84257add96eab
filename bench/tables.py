"""What the bench prints, once as cells: for the console with rich, for people as Markdown."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from bench.contenders import EAGER
from bench.results import Report, Row
from bench.targets import Checked, check_targets
from bench.timing import Spread, spread

__all__ = ["NOTE", "Grid", "grids", "markdown", "notes"]

NOTE = (
    "ms: median of one batch. All else is over the undefended network: time in the same arithmetic, and over "
    "eager float32 (medians and quartiles of the ratios within each round); FLOPs, exact, per image. "
    "Memory is the peak of a process of its own, loading not counted."
)


@dataclass(frozen=True)
class Grid:
    """A table: the first column is text, the others are numbers."""

    title: str
    headings: tuple[str, ...]
    lines: list[tuple[str, ...]]

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for line in self.lines:
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        rule = [":--", *["--:"] * (len(self.headings) - 1)]
        lines = [self.headings, tuple(rule), *self.lines]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def grids(report: Report) -> Iterator[Grid]:
    """Every table of the report: one per network and batch size, then sweeps, errors and targets."""
    for network, batch in report.cells():
        rows = [row for row in report.rows if (row.network, row.batch) == (network, batch)]
        facts = report.subjects[network]
        title = f"{network}, batch {batch} (k = {facts['k']}, n = {facts['n']}, {facts['weights']})"
        headings = ("contender", "ms", "time, same arithmetic", "time, eager float32",
                    "FLOPs", "weights", "memory")  # fmt: skip
        yield Grid(title, headings, [line_of(report, row) for row in rows])
    for network, found in report.sweep.items():
        yield from sweep_grids(network, found)
    if report.arithmetic:
        yield error_grid(report.arithmetic)
    yield target_grid(check_targets(report))


def line_of(report: Report, row: Row) -> tuple[str, ...]:
    if row.skipped is not None:
        return (row.contender, "skipped", *["–"] * 5)
    return (
        row.contender,
        f"{spread([1000 * s for s in row.seconds]).median:.1f}" if row.seconds else "–",
        ranged(report.time_ratio(row)),
        ranged(report.time_ratio(row, EAGER)),
        times(report.flops_ratio(row)),
        times(report.resident_ratio(row)),
        "–" if row.peak is None else f"{times(report.peak_ratio(row))} ({row.peak / 2**20:.0f} MiB)",
    )


def ranged(value: Spread | None) -> str:
    if value is None:
        return "–"
    digits = 2 if value.median < 100 else 0
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}–{value.high:.{digits}f})"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def sweep_grids(network: str, found: dict[str, Any]) -> Iterator[Grid]:
    for name, fixed in (("n", f"k = {found['k']}"), ("k", f"n = {found['n']}")):
        clock = found.get(f"time_by_{name}")
        headings = (name, "FLOPs", "n + 1 passes", *(["time"] if clock else []))
        lines = []
        for key, ratio in found[f"by_{name}"].items():
            passes = 1 + (key if name == "n" else found["n"])
            lines.append((str(key), times(ratio), str(passes), *([times(clock[key])] if clock else [])))
        yield Grid(f"{network}: cost of the full score by {name} ({fixed})", headings, lines)


def error_grid(errors: dict[str, dict[str, Any]]) -> Grid:
    lines: list[tuple[str, ...]] = []
    for network, found in errors.items():
        for kind in ("benign", "poisoned"):
            if kind in found:
                part = found[kind]
                difference = f"{part['score']['mean']:.4f} / {part['score']['largest']:.4f}"
                changed = [f"{part[what]} of {part['images']}" for what in ("predictions", "verdicts")]
                lines.append((f"{network}, {kind}: {found['engine']}", difference, *changed))
    headings = ("images", "score, mean / largest difference", "predictions changed", "verdicts changed")
    return Grid("Error of the other arithmetics", headings, lines)


def target_grid(checked: list[Checked]) -> Grid:
    words = {True: "met", False: "missed", None: "not measured"}
    lines: list[tuple[str, ...]] = [(c.what, f"≤ {c.bound:g}", times(c.value), words[c.met]) for c in checked]
    return Grid(
        "Targets: ResNet-18 for 32×32, k = 11, n = 5", ("ratio", "target", "measured", "verdict"), lines
    )


def notes(report: Report) -> Iterator[str]:
    """A sentence for everything that a reader of the tables should know besides."""
    yield NOTE
    for network, facts in report.subjects.items():
        yield from (f"{network}: {note}." for note in facts["notes"])
        reasons: dict[str, list[str]] = {}
        for row in report.rows:
            if row.network == network and row.skipped is not None:
                names = reasons.setdefault(row.skipped, [])
                names += [row.contender] if row.contender not in names else []
        yield from (f"{network}: skipped {'; '.join(names)}: {why}." for why, names in reasons.items())
    if "note" in report.machine:
        yield f"Note: {report.machine['note']}."


def markdown(report: Report) -> str:
    """The whole report as one Markdown page."""
    machine = "\n".join(f"- {key}: {value}" for key, value in report.machine.items())
    told = "\n\n".join(notes(report))
    parts = ["# What guarding a model costs", machine, told, *(grid.markdown() for grid in grids(report))]
    return "\n\n".join(parts) + "\n"
