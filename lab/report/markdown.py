"""The report as Markdown: tables only."""

import re
from collections.abc import Sequence

from lab.report.results import TOOK, Bundle
from lab.report.tables import Table, ablation_table, class_table, figure_tables, models_table

__all__ = ["LEGEND", "plain", "table_lines", "to_markdown"]

LEGEND = (
    f"A model counts in means where its attack took: an ASR of {TOOK:g} or more. The others are shown and "
    "marked. Images that calibrate a detector never judge it. The papers' own numbers are left out: they "
    "were not available to be checked."
)


def to_markdown(title: str, bundles: Sequence[Bundle]) -> str:
    """The whole report."""
    own = [make(each) for each in bundles for make in (class_table, ablation_table)]
    tables = [models_table(bundles), *figure_tables(bundles), *[each for each in own if each is not None]]
    return "\n".join([f"# {plain(title)}", "", LEGEND, *map(_table, tables)])


def _table(table: Table) -> str:
    return "\n".join(["", f"## {plain(table.title)}", "", table.note, "", *table_lines(table), ""])


def table_lines(table: Table) -> list[str]:
    """The table alone, with every cell escaped."""
    rule = ["---"] * len(table.headings)
    lines = [_line(map(plain, table.headings)), _line(rule)]
    return lines + [_line(map(plain, row)) for row in table.rows]


def _line(cells: "map[str] | list[str]") -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """`text` without a meaning in Markdown or HTML, on one line."""
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(text.split()))
