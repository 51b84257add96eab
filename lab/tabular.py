"""Tables for a terminal of 80 columns: no frame, little padding, a first column that stays whole."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

__all__ = ["slim_table"]


def slim_table(title: str, *headings: str) -> Table:
    """An empty table with a column for each of `headings`. Cells wrap, but for the first column's, and
    none is cut."""
    table = Table(
        title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    return table
