"""The plots of the console, as SVG: traffic over time, scores against thresholds, answers to probes. Pure."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from markupsafe import Markup

from app.console.probing import Answer
from app.policy import Verdict
from app.storage.decisions import Traffic
from app.storage.what_if import Distribution
from app.svg import Scale, drawing, element, linear, root, share, spaced, ticks

__all__ = ["distribution_plot", "odds_plot", "rate_plot", "rejected", "traffic_plot"]

WIDTH, LEFT, RIGHT, TOP = 620.0, 62.0, 612.0, 14.0
ORDER = (Verdict.REJECTED, Verdict.FLAGGED, Verdict.UNINSPECTED, Verdict.ACCEPTED)  # from below
FEWEST_BINS = 8  # of scores that are drawn, where all lie in the first ones
MOST_TICKS = 24  # thresholds that are drawn


def rejected(step: Traffic) -> int:
    """Images that were rejected or flagged."""
    return step.images.get(Verdict.REJECTED, 0) + step.images.get(Verdict.FLAGGED, 0)


# --- traffic --------------------------------------------------------------------------------------


def traffic_plot(steps: Sequence[Traffic], since: datetime, until: datetime, step: timedelta) -> Markup:
    """Images by verdict, a bar for every `step` that had any."""
    bottom = 150.0
    most = max((sum(each.images.values()) for each in steps), default=0) or 1
    x, y = _times(since, until), linear(0, most, bottom, TOP)
    width = max((RIGHT - LEFT) * (step / (until - since)) - 1, 1.0)
    lines = [_level(y(v), f"{v:g}") for v in ticks(0, most, 4) if v == int(v)]
    bars = [_stack(each, x(each.at.timestamp()), width, y) for each in steps]
    says = "Images over time, by verdict"
    return drawing(WIDTH, bottom + 26, says, *lines, *bars, *_time_axis(since, until, x, bottom))


def _stack(step: Traffic, left: float, width: float, y: Scale) -> Markup:
    parts, base = [], 0
    for verdict in ORDER:
        images = step.images.get(verdict, 0)
        if images:
            top, height = y(base + images), max(y(base) - y(base + images), 1.0)
            title = element("title", f"{step.at:%Y-%m-%d %H:%M}: {images} {verdict}")
            parts.append(
                element("rect", title, x=left, y=top, width=width, height=height, class_=f"verdict {verdict}")
            )
            base += images
    return element("g", *parts)


def rate_plot(
    steps: Sequence[Traffic], since: datetime, until: datetime, step: timedelta, alpha: float | None
) -> Markup:
    """The share of images that was rejected or flagged in every `step`, beside the budget `alpha`."""
    bottom = 150.0
    rates = [(each, rejected(each) / sum(each.images.values())) for each in steps]
    most = min(1.0, max([0.02, 2 * (alpha or 0), *[rate for _, rate in rates]]))
    x, y = _times(since, until), root(most, bottom, TOP)
    half = (RIGHT - LEFT) * (step / (until - since)) / 2
    levels = spaced([v for v in (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0) if v <= most], y, 20)
    marks = [_level(y(value), share(value)) for value in levels]
    if alpha is not None:
        marks.append(element("line", x1=LEFT, x2=RIGHT, y1=y(alpha), y2=y(alpha), class_="budget"))
    for each, rate in rates:
        title = element("title", f"{each.at:%Y-%m-%d %H:%M}: {rejected(each)} of {sum(each.images.values())}")
        middle = x(each.at.timestamp()) + half
        marks.append(element("circle", title, cx=middle, cy=y(rate), r=3.0, class_="rate"))
    says = "Share of images that was rejected or flagged, over time"
    return drawing(WIDTH, bottom + 26, says, *marks, *_time_axis(since, until, x, bottom))


def _times(since: datetime, until: datetime) -> Scale:
    return linear(since.timestamp(), until.timestamp(), LEFT, RIGHT)


def _level(y: float, text: str) -> Markup:
    line = element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid")
    return line + element("text", text, x=LEFT - 8, y=y + 4, text_anchor="end", class_="tick")


def _time_axis(since: datetime, until: datetime, x: Scale, bottom: float) -> list[Markup]:
    """Round hours or days, in UTC."""
    axis = element("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="axis")
    minutes = (until - since) / timedelta(minutes=1)
    apart = next((m for m in (10, 60, 180, 360, 1440, 2880, 7200) if minutes / m <= 7), 14400) * 60
    first = math.ceil(since.timestamp() / apart) * apart
    texts = []
    for seconds in range(first, int(until.timestamp()) + 1, apart):
        at = datetime.fromtimestamp(seconds, UTC)
        said = f"{at:%H:%M}" if apart < 86400 else f"{at:%d %b}"
        place = min(max(x(seconds), LEFT + 14), RIGHT - 24)
        texts.append(element("text", said, x=place, y=bottom + 18, text_anchor="middle", class_="tick"))
    return [axis, *texts]


# --- scores ---------------------------------------------------------------------------------------


def distribution_plot(found: Distribution, thresholds: Sequence[float], detector: str) -> Markup:
    """Scores of cleared images upwards, of suspicious ones downwards, on a square-root scale; a tick at every
    threshold that is enforced."""
    middle, bottom = 110.0, 196.0
    shown = _bins_shown(found, thresholds)
    low, high = found.edges[0], found.edges[shown]
    x, width = linear(low, high, LEFT, RIGHT), (RIGHT - LEFT) / shown
    most = max([*found.cleared, *found.suspicious, 1])
    marks = [element("line", x1=LEFT, x2=RIGHT, y1=middle, y2=middle, class_="axis")]
    for counts, y, verdict in (
        (found.cleared, root(most, middle, TOP), "accepted"),
        (found.suspicious, root(most, middle, bottom), "rejected"),
    ):
        for number, count in enumerate(counts[:shown]):
            if count:
                end = y(count)
                title = f"{found.edges[number]:.4g} to {found.edges[number + 1]:.4g}: {count} images"
                box = {"x": LEFT + number * width + 0.5, "width": width - 1}
                box |= {"y": min(end, middle), "height": max(abs(end - middle), 1.0)}
                marks.append(element("rect", element("title", title), **box, class_=f"verdict {verdict}"))
    for value in [t for t in thresholds if low <= t <= high][:MOST_TICKS]:
        title = element("title", f"threshold {value:.4g}")
        ends = {"x1": x(value), "x2": x(value), "y1": middle - 14, "y2": middle + 14}
        marks.append(element("line", title, **ends, class_="threshold"))
    says = f"Scores of {detector} of cleared and suspicious images, with its thresholds"
    return drawing(WIDTH, bottom + 26, says, *marks, *_score_axis(low, high, middle, bottom))


def _bins_shown(found: Distribution, thresholds: Sequence[float]) -> int:
    """Without empty bins at the right end that no threshold needs."""
    used = [n for n in range(len(found.cleared)) if found.cleared[n] or found.suspicious[n]]
    inside = [t for t in thresholds if t <= found.edges[-1]]
    used += [n for n in range(len(found.cleared)) if inside and found.edges[n] <= max(inside)]
    return min(max([FEWEST_BINS, *[n + 1 for n in used]]), len(found.cleared))


def _score_axis(low: float, high: float, middle: float, bottom: float) -> list[Markup]:
    x = linear(low, high, LEFT, RIGHT)
    marks = [
        element("text", f"{value:g}", x=x(value), y=bottom + 18, text_anchor="middle", class_="tick")
        for value in spaced(ticks(low, high, 6), x, 60)
    ]
    ways = (("↑ cleared", TOP + 8), ("↓ suspicious", middle + 76))
    return marks + [
        element("text", text, x=RIGHT - 24, y=y, text_anchor="end", class_="tick") for text, y in ways
    ]


# --- one image ------------------------------------------------------------------------------------

DEVIATIONS = 2.0  # of the band that is usual: about 19 of 20 benign images


def odds_plot(answers: Sequence[Answer], plain: Answer) -> Markup:
    """The log-odds of the predicted label under every probe, and where those of benign images lie."""
    rows = [("as it is", plain), *[(each.question.name if each.question else "", each) for each in answers]]
    ends = [each.log_odds for _, each in rows]
    ends += [m + side * DEVIATIONS * s for _, a in rows if a.usual for m, s in [a.usual] for side in (-1, 1)]
    left, right, height, top = 74.0, 404.0, 26.0, 8.0
    x, bottom = linear(min(ends) - 0.5, max(ends) + 0.5, left, right), top + height * len(rows)
    marks = [
        element("line", x1=x(v), x2=x(v), y1=top, y2=bottom, class_="grid")
        for v in ticks(min(ends), max(ends), 6)
    ]
    for number, (name, each) in enumerate(rows):
        middle = top + height * (number + 0.5)
        marks.append(element("text", name, x=left - 8, y=middle + 4, text_anchor="end", class_="label"))
        if each.usual is not None:
            mean, deviation = each.usual
            start, end = x(mean - DEVIATIONS * deviation), x(mean + DEVIATIONS * deviation)
            title = element("title", f"benign: {mean:.2f} ± {DEVIATIONS * deviation:.2f}")
            box = {"x": start, "y": middle - 7, "width": end - start, "height": 14}
            marks.append(element("rect", title, **box, class_="band"))
        unusual = each.deviation is not None and abs(each.deviation) > DEVIATIONS
        title = element("title", f"{each.log_odds:.2f}")
        kind = "answer unusual" if unusual else "answer"
        marks.append(element("circle", title, cx=x(each.log_odds), cy=middle, r=5.0, class_=kind))
    marks += [
        element("text", f"{value:g}", x=x(value), y=bottom + 16, text_anchor="middle", class_="tick")
        for value in spaced(ticks(min(ends), max(ends), 6), x, 30)
    ]
    says = "Log-odds of the predicted label under every probe, beside those of benign images"
    return drawing(412, bottom + 24, says, *marks)
