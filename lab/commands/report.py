"""`triggerwall lab report`: a study's results as Markdown and as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import console, told_plainly
from lab.report.markdown import to_markdown
from lab.report.page import to_page
from lab.report.results import read_study

__all__ = ["report_command"]


def report_command(
    study: Annotated[Path, typer.Argument(help="The folder that `lab study` wrote to (its `out`).")],
    out: Annotated[Path, typer.Option(help="Write report.md and report.html into this folder.")],
) -> None:
    """Write a study's results as report.md and as report.html, which needs no other file."""
    with told_plainly():
        bundles = read_study(study)
        title = f"Study {study.resolve().name}"
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("report.md", to_markdown(title, bundles)),
            ("report.html", to_page(title, bundles)),
        ):
            (out / name).write_text(text, encoding="utf-8")
    judged = sum(bool(each.rows) for each in bundles)
    console.print(f"{out}: report.md, report.html; {judged} of {len(bundles)} models judged", markup=False)
