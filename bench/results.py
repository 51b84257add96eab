"""What was measured, as rows; ratios are formed round by round."""

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.contenders import EAGER
from bench.timing import Spread, spread

__all__ = ["Report", "Row"]


@dataclass
class Row:
    """One contender on one network at one batch size.

    `seconds`: per batch, one a round. `flops`: per image. `resident`: bytes of weights. `peak`: bytes of
    memory beyond the idle process. `skipped`: why there is nothing else.
    """

    network: str
    batch: int
    contender: str
    baseline: str = EAGER
    engine: str = ""
    seconds: list[float] = field(default_factory=list)
    flops: float | None = None
    resident: int | None = None
    peak: int | None = None
    error: float | None = None
    skipped: str | None = None


@dataclass
class Report:
    """All rows of one run. `subjects`: what was run, by network; `machine`: on what; `sweep` and
    `arithmetic` (the error of the other arithmetics) by network."""

    machine: dict[str, Any]
    subjects: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    sweep: dict[str, Any] = field(default_factory=dict)
    arithmetic: dict[str, dict[str, Any]] = field(default_factory=dict)

    def row(self, network: str, contender: str, batch: int | None = None) -> Row | None:
        """The row, of any batch size for None; None where it was not measured."""
        found = (
            row
            for row in self.rows
            if (row.network, row.contender) == (network, contender)
            and batch in (None, row.batch)
            and row.skipped is None
        )
        return next(found, None)

    def cells(self) -> list[tuple[str, int]]:
        """The pairs of network and batch size, in the order in which they were run."""
        return list(dict.fromkeys((row.network, row.batch) for row in self.rows))

    def time_ratio(self, row: Row, contender: str | None = None) -> Spread | None:
        """Time over that of `contender` (default: undefended in the same arithmetic), round by round."""
        other = self.row(row.network, contender or row.baseline, row.batch)
        if other is None or not row.seconds or len(row.seconds) != len(other.seconds):
            return None
        return spread([ours / theirs for ours, theirs in zip(row.seconds, other.seconds, strict=True)])

    def flops_ratio(self, row: Row) -> float | None:
        return self._ratio(row, "flops", row.baseline)

    def resident_ratio(self, row: Row) -> float | None:
        """Bytes of weights over those of the network itself."""
        return self._ratio(row, "resident", EAGER)

    def peak_ratio(self, row: Row) -> float | None:
        return self._ratio(row, "peak", EAGER)

    def _ratio(self, row: Row, what: str, contender: str) -> float | None:
        other = self.row(row.network, contender, row.batch)
        ours, theirs = getattr(row, what), getattr(other, what, None)
        return float(ours / theirs) if ours and theirs else None  # 0: not counted

    def to_json(self) -> dict[str, Any]:
        """Everything measured, with the ratios beside it."""
        return {**asdict(self), "rows": [self._row_json(row) for row in self.rows]}

    def _row_json(self, row: Row) -> dict[str, Any]:
        same, eager = self.time_ratio(row), self.time_ratio(row, EAGER)
        return {
            **asdict(row),
            "mean_seconds": sum(row.seconds) / len(row.seconds) if row.seconds else None,
            "time_ratio": asdict(same) if same else None,
            "time_ratio_to_eager_float32": asdict(eager) if eager else None,
            "flops_ratio": self.flops_ratio(row),
            "resident_ratio": self.resident_ratio(row),
            "peak_ratio": self.peak_ratio(row),
        }
