"""Templates → pages. Everything that comes from outside is escaped, and a page may load only what is ours."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.headers import NO_FRAMES
from app.svg import share

__all__ = ["ASSETS", "POLICY", "asset", "asset_version", "problem_page", "render"]

TEMPLATES = Path(__file__).parents[1] / "templates"
ASSETS = {
    "report.css": (TEMPLATES / "report.css", "text/css"),
    "console.css": (TEMPLATES / "console" / "console.css", "text/css"),
    "icon.svg": (TEMPLATES / "console" / "icon.svg", "image/svg+xml"),
    "console.js": (TEMPLATES / "console" / "console.js", "text/javascript"),
}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    f"form-action 'self'; base-uri 'none'; {NO_FRAMES}"
)


def render(template: str, **context: Any) -> str:
    """`template` is a file's name in `templates/console`."""
    return _environment().get_template(f"console/{template}").render(**context)


def problem_page(kind: Mapping[str, Any]) -> str:
    """The page for a problem: `status`, `title`, `detail` and `request_id`."""
    return render("problem.html", **kind)


@cache
def asset(name: str) -> tuple[bytes, str]:
    """The bytes of one of `ASSETS`, and its content type."""
    path, kind = ASSETS[name]
    return path.read_bytes(), kind


@cache
def asset_version(name: str) -> str:
    """Part of the URL of an asset, so that a browser may keep it until it changes."""
    return hashlib.sha256(asset(name)[0]).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": share, "when": when, "ago": ago, "count": count, "figure": figure}
    environment.globals |= {"asset_version": asset_version}
    return environment


def when(at: datetime) -> str:
    """To the second, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def ago(at: datetime) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, (datetime.now(UTC) - at).total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def count(number: int) -> str:
    """With narrow no-break spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def figure(value: float | None) -> str:
    """Four significant digits."""
    return "—" if value is None else f"{value:.4g}"
