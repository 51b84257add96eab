"""A page for `docs/results/`: a study in small tables, above a mark; what people write below it is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lab.report.markdown import LEGEND, plain, table_lines
from lab.report.results import Bundle, Row
from lab.report.tables import NONE, Table, models_table

__all__ = ["MARK", "summary", "write_summary"]

MARK = "<!-- Everything above is written by `triggerwall lab report`; what stands below is kept. -->"
SKELETON = """

## Where this agrees with the papers, where it does not, and why

Not written yet.
"""


def write_summary(path: Path, title: str, bundles: Sequence[Bundle], command: str) -> None:
    """Write the tables into `path`, and keep what stands below the mark there."""
    kept = SKELETON
    if path.exists():
        _, mark, below = path.read_text(encoding="utf-8").partition(MARK)
        kept = below if mark else SKELETON
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{summary(title, bundles, command)}\n{MARK}{kept}", encoding="utf-8")


def summary(title: str, bundles: Sequence[Bundle], command: str) -> str:
    """Markdown: models × detectors."""
    tables = [models_table(bundles), *_pairs([each for each in bundles if each.rows])]
    lines = [f"# {plain(title)}", "", LEGEND, "", "```sh", command, "```"]
    for table in tables:
        lines += ["", f"## {table.title}", "", table.note, "", *table_lines(table)]
    return "\n".join([*lines, ""])


def _pairs(bundles: Sequence[Bundle]) -> list[Table]:
    attacked = [each for each in bundles if each.attack is not None]
    tables = [
        _table("AUROC", "Against all benign images / those predicted as the target.", attacked, _areas),
        _table("Stopped at 1 %", f"{RATES} at a budget of 1 %.", attacked, _rates("0.01")),
        _table("Stopped at 5 %", f"{RATES} at a budget of 5 %.", attacked, _rates("0.05")),
        _table("Stopped at the paper's T", f"{RATES} at the fixed threshold.", attacked, _rates("fixed")),
        _table(
            "Benign models", "Share of benign images rejected at 1 % / at 5 % / at the paper's T.",
            [each for each in bundles if each.attack is None], _alarms,
        ),
    ]  # fmt: skip
    return [table for table in tables if table is not None]


RATES = "Share of all poisoned / of benign images rejected"


def _table(title: str, note: str, bundles: Sequence[Bundle], cell: Callable[[Row], str]) -> Table | None:
    if not bundles:
        return None
    detectors = list(dict.fromkeys(name for each in bundles for name in each.rows))
    rows = tuple(
        (
            each.name if each.took or each.attack is None else f"{each.name} ({each.state})",
            *[cell(each.rows[name]) if name in each.rows else NONE for name in detectors],
        )
        for each in bundles
    )
    return Table(title, note, ("model", *detectors), rows)


def _areas(row: Row) -> str:
    return _joined(row.auroc, row.target_auroc)


def _rates(limit: str) -> Callable[[Row], str]:
    return lambda row: _joined(row.tpr.get(limit), row.fpr.get(limit))


def _alarms(row: Row) -> str:
    return _joined(*[row.fpr.get(limit) for limit in ("0.01", "0.05", "fixed")])


def _joined(*values: float | None) -> str:
    """Without the leading zero: tables are to fit."""
    return " / ".join(NONE if value is None else f"{value:.3f}".removeprefix("0") for value in values)
