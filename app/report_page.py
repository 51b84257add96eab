"""A calibration report as one HTML page: no script, nothing loaded from anywhere, light and dark."""

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from app.evidence import strongest
from app.plots import collapse_plot, confidence_plot, rates_plot, remarkable, scores_plot
from app.svg import share

__all__ = ["SECURITY_POLICY", "report_context", "report_page"]

TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "report.css").read_text(encoding="utf-8")


def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


SECURITY_POLICY = _policy()
"""Content-Security-Policy of the page: its own style, and nothing else at all."""


def report_page(report: Mapping[str, Any]) -> str:
    """The page of `report`, which is what GET /calibrations/{id} answers. Everything in it is escaped."""
    return _template().render(style=Markup(STYLE), policy=SECURITY_POLICY, **report_context(report))


def report_context(report: Mapping[str, Any]) -> dict[str, Any]:
    """What `templates/report_body.html` shows of `report`, wherever it is included."""
    return {
        "report": report,
        "detectors": [_detector(part) for part in report["detectors"]],
        "evidence": _evidence(report),
        "confidence": _confidence(report),
    }


@cache
def _template() -> Template:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["share"] = share
    return environment.get_template("report.html")


def _detector(part: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs of one detector. Reports of older releases have no histogram to draw."""
    drawn = part.get("histogram") is not None
    return {
        **part,
        "scores_plot": scores_plot(part) if drawn else None,
        "rates_plot": rates_plot(part) if drawn else None,
        "shown": len(remarkable(part)),
        "level": part["power"].partition(":")[0],
        "why": part["power"].partition(": ")[2],
        "cost": part.get("cost"),
        "engine": part.get("engine"),
        "k": part["fit"].get("k"),
        "settings": json.dumps(part["settings"], ensure_ascii=False),
    }


def _evidence(report: Mapping[str, Any]) -> dict[str, Any] | None:
    found = report["evidence"]
    if not found:
        return None
    return {"plot": collapse_plot(found), "sentences": [each["sentence"] for each in strongest(found)]}


def _confidence(report: Mapping[str, Any]) -> Markup | None:
    for part in report["detectors"]:
        if (part.get("behaviour") or {}).get("confidence"):
            return confidence_plot(part)
    return None
