"""The overview: what came and what was stopped, the state of the gateway, what is known of the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.console.classes import class_name
from app.console.plots import rate_plot, rejected, traffic_plot
from app.evidence import strongest
from app.gateway import Gateway
from app.policy import Verdict
from app.storage.decisions import Span
from app.storage.quarantine import HeldFilter
from app.watch import MEANING
from detectors.drift import State

__all__ = ["STEPS", "live", "model_facts", "problems"]

STEPS = {"hour": (60, 1), "day": (1440, 15), "week": (10080, 120), "month": (43200, 720)}
"""Minutes that are shown, and minutes of one step."""
LABELS = 5  # of those most often rejected
NEWEST = 10_000  # rejections whose labels are counted


@dataclass(frozen=True)
class LabelShare:
    """A label among the newest rejections; `share` of them in [0, 1]."""

    label: int
    name: str
    rejections: int
    share: float


def live(gateway: Gateway, shown: str) -> dict[str, Any]:
    """What changes while one looks; `shown` is one of `STEPS`. Blocking. Raises `StoreError`."""
    minutes, step_minutes = STEPS[shown]
    step, until = timedelta(minutes=step_minutes), datetime.now(UTC)
    since = _floored(until - timedelta(minutes=minutes), step)
    steps = gateway.decisions.traffic(Span(since), step_minutes)
    images, stopped = sum(sum(each.images.values()) for each in steps), sum(map(rejected, steps))
    active = gateway.calibrator.active
    alpha = active.alpha if active else None
    return {
        "shown": shown,
        "spans": list(STEPS),
        "images": images,
        "stopped": stopped,
        "rate": stopped / images if images else None,
        "uninspected": sum(each.images.get(Verdict.UNINSPECTED, 0) for each in steps),
        "alpha": alpha,
        "traffic_plot": traffic_plot(steps, since, until, step),
        "rate_plot": rate_plot(steps, since, until, step, alpha),
        "labels": _labels(gateway, Span(since)),
        "drift": _drift(gateway),
        "waiting": gateway.quarantine.count(HeldFilter(reviewed=False)),
        "problems": problems(gateway),
        "at": until,
    }


def _floored(at: datetime, step: timedelta) -> datetime:
    seconds = step.total_seconds()
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def _labels(gateway: Gateway, span: Span) -> list[LabelShare]:
    counts = gateway.decisions.labels(span, suspicious=True, most=NEWEST)
    total = sum(counts.values())
    most = sorted(counts, key=lambda label: (-counts[label], label))[:LABELS]
    names = {label: class_name(gateway.info, label) for label in most}
    return [LabelShare(label, names[label], counts[label], counts[label] / total) for label in most]


def _drift(gateway: Gateway) -> dict[str, Any]:
    monitor, state = gateway.watch.monitor, gateway.watch.state
    top = monitor.top_label() if monitor is not None else None
    return {
        "state": state.value.replace("_", " "),
        "good": state is State.STEADY,
        "meaning": "traffic is like the calibration images" if state is State.STEADY else MEANING[state],
        "images": monitor.images if monitor is not None else 0,
        "top": class_name(gateway.info, top.label) if top is not None and top.concentrated else None,
    }


def problems(gateway: Gateway) -> list[str]:
    """What an operator has to know at once: that nothing can be enforced, and what is not kept."""
    found = [gateway.not_ready() or gateway.calibrator.mismatch, gateway.not_alive()]
    for what, state in (("decisions", gateway.recording.decisions), ("images", gateway.recording.quarantine)):
        if state.problem is not None:
            found.append(f"{state.problem} (images are judged all the same)")
        if state.dropped:
            found.append(f"{state.dropped} {what} could not be kept since the gateway started")
    return [each for each in found if each]


def model_facts(gateway: Gateway) -> dict[str, Any]:
    """What the calibration that is enforced says of the model."""
    active = gateway.calibrator.active
    report: Mapping[str, Any] = active.report if active else {}
    return {
        "info": gateway.info,
        "active": active,
        "powers": [(part["detector"], *part["power"].split(": ", 1)) for part in report.get("detectors", [])],
        "warnings": report.get("warnings", []),
        "sentences": [each["sentence"] for each in strongest(report.get("evidence") or [])],
    }
