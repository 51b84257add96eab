"""Tables that fit 80 columns lose nothing."""

import io

from rich.console import Console

from lab.tabular import slim_table


def test_what_does_not_fit_is_wrapped_and_never_cut() -> None:
    cells = [f"{number}.000/0.{number}23" for number in range(8)]
    table = slim_table("figures", "detector", *["of everything"] * 8)
    table.add_row("profile", *cells)
    shown = io.StringIO()
    Console(file=shown, width=60).print(table)
    text = shown.getvalue()
    assert "profile" in text
    assert max(map(len, text.splitlines())) <= 60
    assert sorted(filter(str.isdigit, text)) == sorted(filter(str.isdigit, "".join(cells)))
