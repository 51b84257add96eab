"""SVG by hand: elements whose every text and attribute is escaped, and scales from values to pixels."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

__all__ = ["Scale", "drawing", "element", "linear", "root", "share", "shorten", "spaced", "ticks"]

Scale = Callable[[float], float]
"""Value → pixels."""


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`<name …>children</name>`; `class_` and `text_anchor` become `class` and `text-anchor`. Coordinates are
    rounded to a hundredth of a pixel."""
    pairs = [f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(v))}"' for key, v in attributes.items()]
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("".join(pairs)), inside)


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def drawing(width: float, height: float, says: str, *children: object) -> Markup:
    """A drawing that scales with its column; `says` is what it shows, for those who cannot see it."""
    return element("svg", *children, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=says)


def linear(low: float, high: float, left: float, right: float) -> Scale:
    """[low, high] → [left, right], held at its ends."""
    span = high - low or 1.0
    return lambda value: left + (right - left) * min(max((value - low) / span, 0.0), 1.0)


def root(high: float, left: float, right: float) -> Scale:
    """[0, high] → [left, right] as the square root, so that a hundredth can still be seen beside a half."""
    return lambda value: left + (right - left) * math.sqrt(min(max(value / (high or 1.0), 0.0), 1.0))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round values within [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def share(value: float) -> str:
    """A share as people write it, held together by a no-break space: 0.4 %, 12 %, 99.5 %."""
    percent = 100 * value
    if 99 < percent < 100:
        return f"{min(percent, 99.9):.1f}\u00a0%"
    return f"{percent:.0f}\u00a0%" if percent >= 9.95 or percent == 0 else f"{percent:.2g}\u00a0%"


def shorten(text: str, most: int = 12) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def spaced(values: Sequence[float], scale: Scale, least: float) -> list[float]:
    """Those of ascending `values` that lie at least `least` pixels apart."""
    kept: list[float] = []
    for value in values:
        if not kept or abs(scale(value) - scale(kept[-1])) >= least:
            kept.append(value)
    return kept
