"""The report as one HTML page: no script, nothing loaded from anywhere, light and dark."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab.metrics import auroc
from lab.report.curves import contrast, plane, settings
from lab.report.extras import groups
from lab.report.markdown import LEGEND
from lab.report.plots import COLOURS, histogram, roc
from lab.report.results import Bundle
from lab.report.tables import ablation_table, class_table, figure_tables, models_table

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
        colours=COLOURS,
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        tables=[models_table(bundles), *figure_tables(bundles)],
        sections=[_section(each) for each in bundles],
    )


def _section(bundle: Bundle) -> dict[str, Any]:
    """What there is to show of one bundle."""
    return {
        "bundle": bundle,
        "tables": [each for each in (class_table(bundle), ablation_table(bundle)) if each is not None],
        "plots": _plots(bundle) if bundle.scores else None,
        "curves": _curves(bundle),
        "plane": _plane(bundle),
        "triggers": base64.b64encode(bundle.triggers).decode("ascii") if bundle.triggers else None,
        "settings": [settings(rows) for rows in groups(bundle.ablation) if len(rows) > 1],
    }


def _curves(bundle: Bundle) -> list[Markup]:
    found = bundle.behaviour
    if found is None:
        return []
    drawn = []
    if found.amplification is not None:
        title = "Confidence against the number of amplified layers"
        drawn.append(contrast(found.amplification, title, "amplified BatchNorm layers, from the last"))
    if found.scaling is not None:
        title = "Confidence against the pixel multiplier"
        drawn.append(contrast(found.scaling, title, "pixels multiplied by"))
    return drawn


def _plane(bundle: Bundle) -> dict[str, Any] | None:
    found = bundle.behaviour.features if bundle.behaviour else None
    if found is None:
        return None
    target = None if bundle.attack is None else bundle.target
    return {"drawing": plane(found, target), "explained": found.explained}


def _plots(bundle: Bundle) -> dict[str, Any]:
    names = [
        {"name": name, "colour": COLOURS[number % len(COLOURS)], "auroc": auroc(*pair)}
        for number, (name, pair) in enumerate(bundle.scores.items())
    ]
    return {
        "roc": roc(bundle.scores),
        "names": names,
        "histograms": [histogram(name, *pair) for name, pair in bundle.scores.items()],
    }
