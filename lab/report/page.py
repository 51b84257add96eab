"""The report as one HTML page: no script, nothing loaded from anywhere, light and dark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab.metrics import auroc
from lab.report.markdown import LEGEND
from lab.report.plots import COLOURS, histogram, roc
from lab.report.results import Bundle
from lab.report.tables import figure_tables, models_table

__all__ = ["to_page"]

TEMPLATES = Path(__file__).with_name("templates")


def to_page(title: str, bundles: Sequence[Bundle]) -> str:
    """The whole report; every name in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        title=title,
        legend=LEGEND,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        tables=[models_table(bundles), *figure_tables(bundles)],
        plots=[_plots(each) for each in bundles if each.scores],
    )


def _plots(bundle: Bundle) -> dict[str, Any]:
    names = [
        {"name": name, "colour": COLOURS[number % len(COLOURS)], "auroc": auroc(*pair)}
        for number, (name, pair) in enumerate(bundle.scores.items())
    ]
    return {
        "bundle": bundle,
        "roc": roc(bundle.scores),
        "names": names,
        "histograms": [histogram(name, *pair) for name, pair in bundle.scores.items()],
    }
