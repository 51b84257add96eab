"""`triggerwall lab report`: a study's results as Markdown and as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.common import console, told_plainly
from lab.report.markdown import to_markdown
from lab.report.page import to_page
from lab.report.results import read_study
from lab.report.summary import write_summary

__all__ = ["report_command"]


def report_command(
    study: Annotated[Path, typer.Argument(help="The folder that `lab study` wrote to (its `out`).")],
    out: Annotated[Path, typer.Option(help="Write report.md and report.html into this folder.")],
    page: Annotated[
        Path | None,
        typer.Option(
            help="Write the study in a few small tables there, as Markdown; text below its mark is kept."
        ),
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="The command that repeats the study, for that page.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="By default from the folder's name.")] = None,
) -> None:
    """Write a study's results as report.md and as report.html, which needs no other file."""
    with told_plainly():
        bundles = read_study(study)
        heading = title or f"Study {study.resolve().name}"
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("report.md", to_markdown(heading, bundles)),
            ("report.html", to_page(heading, bundles)),
        ):
            (out / name).write_text(text, encoding="utf-8")
        if page is not None:
            repeat = command or f"triggerwall lab study lab/studies/{study.resolve().name}.yaml"
            write_summary(page, heading, bundles, repeat)
    judged = sum(bool(each.rows) for each in bundles)
    console.print(f"{out}: report.md, report.html; {judged} of {len(bundles)} models judged", markup=False)
