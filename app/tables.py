"""What the command line prints: the gateway's answers as tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from app.settings_reference import SettingFacts

__all__ = [
    "calibration_table",
    "calibrations_table",
    "classes_table",
    "comparison_table",
    "facts_table",
    "results_table",
    "settings_table",
]

POWER = {"has power": "green", "weak": "yellow", "none": "red"}
COLOURS = {"accepted": "green", "rejected": "red", "flagged": "yellow", "uninspected": "yellow"}


def results_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """One line per image: (file, result of /classify)."""
    table = Table("image", "verdict", "prediction", "detectors (score, threshold, p)")
    for file, result in rows:
        if result.get("error"):
            table.add_row(escape(file), "[magenta]unreadable", "", escape(result["error"]["detail"]))
            continue
        verdict = result["verdict"]
        table.add_row(
            escape(file), f"[{COLOURS[verdict]}]{verdict}", _prediction(result), _detections(result)
        )
    return table


def _prediction(result: Mapping[str, Any]) -> str:
    prediction = result["prediction"]
    if prediction is None:
        return "withheld"
    confidence = prediction["confidence"]
    name = escape(prediction["name"] or str(prediction["label"]))
    return name if confidence is None else f"{name} ({confidence:.3f})"


def _detections(result: Mapping[str, Any]) -> str:
    return "\n".join(_detection(found) for found in result["detections"])


def _detection(found: Mapping[str, Any]) -> str:
    score, threshold, p = (_number(found[name], "{:.3f}") for name in ("score", "threshold", "p_value"))
    bound = "" if found["exact"] else " (bound)"
    colour = "[red]" if found["suspicious"] else ""
    return f"{colour}{found['detector']} {score}{bound} / {threshold}, p {p}"


def _number(value: Any, shape: str = "{:.4f}") -> str:
    return "—" if value is None else shape.format(value)


def calibration_table(report: Mapping[str, Any]) -> Table:
    """One line per detector of a calibration report; its warnings say why power is less than full."""
    headings = ("detector", "budget", "FPR", "95 % interval", "saturated", "k", "passes", "power")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # fits 80 columns
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for part in report["detectors"]:
        level = part.get("power_level")
        table.add_row(
            part["detector"],
            f"{part['alpha']:.2%}",
            f"{part['achieved_fpr']:.2%}",
            _interval(part),
            f"{part['saturation']:.1%}",
            str(part["fit"].get("k", "—")),
            _passes(part.get("cost")),
            f"[{POWER.get(level, 'default')}]{escape(level or part['power'])}",
        )
    if report.get("together"):
        union = report["together"]
        table.add_section()
        table.add_row("all", f"{report['alpha']:.2%}", f"{union['achieved_fpr']:.2%}", _interval(union))
    return table


def _interval(figures: Mapping[str, Any]) -> str:
    low, high = figures["achieved_fpr_interval"]
    return f"{low:.2%}–{high:.2%}"


def _passes(cost: Mapping[str, float] | None) -> str:
    """Forward passes for a full score, and those expected on benign images where these are fewer."""
    if cost is None:
        return "—"
    full, expected = (f"{cost[name]:.1f}" for name in ("full", "expected"))
    return full if full == expected else f"{full} ({expected})"


def classes_table(report: Mapping[str, Any]) -> Table:
    """One line per predicted class, with every detector's threshold, false-positive rate and saturation."""
    parts = report["detectors"]
    headings = [f"{part['detector']}: threshold, FPR, saturated" for part in parts]
    table = Table("predicted class", "images", *headings)
    for rows in zip(*[part["classes"] for part in parts], strict=True):
        cells = [
            ", ".join(
                (_number(r["threshold"]), *(_number(r[n], "{:.1%}") for n in ("achieved_fpr", "saturation")))
            )
            for r in rows
        ]
        table.add_row(_class(rows[0]), str(rows[0]["images"]), *cells)
    return table


def _class(row: Mapping[str, Any]) -> str:
    label, name = str(row["label"]), row.get("name")
    return f"{label} {escape(name)}" if name and name != label else label


def calibrations_table(history: Mapping[str, Any]) -> Table:
    """One line per calibration; the one that is enforced is marked."""
    table = Table("calibration", "made", "of", "budget", "images", "")
    for each in history["calibrations"]:
        model = f"{each['model']['name']} {each['model']['version']} ({each['model']['digest'][:12]})"
        table.add_row(
            each["id"], each["created_at"], escape(model), f"{each['alpha']:.2%}", str(each["images"]),
            "[green]enforced" if each["active"] else "",
        )  # fmt: skip
    return table


def comparison_table(found: Mapping[str, Any]) -> Table:
    """What two calibrations have of each; a threshold per label is left to the JSON."""
    a, b = found["a"], found["b"]
    table = Table("", escape(a["id"]), escape(b["id"]))
    for name, shape in (("alpha", "{:.2%}"), ("images", "{}"), ("benign_accuracy", "{:.2%}")):
        table.add_row(name.replace("_", " "), _number(a[name], shape), _number(b[name], shape))
    table.add_row("can be enforced here", *("yes" if side["fits"] else "no" for side in (a, b)))
    for each in found["detectors"]:
        for name, shape in (("achieved_fpr", "{:.2%}"), ("k", "{}"), ("power", "{}")):
            sides = [(each[side] or {}).get(name) for side in ("a", "b")]
            if sides != [None, None]:
                words = name.replace("_", " ").replace("fpr", "FPR")
                table.add_row(f"{each['detector']}: {words}", *(escape(_number(v, shape)) for v in sides))
    return table


def settings_table(facts: Sequence[SettingFacts]) -> Table:
    """One line per setting."""
    table = Table("setting", "takes", "default", "", box=SIMPLE_HEAD, pad_edge=False)
    for each in facts:
        table.add_row(
            each.variable,
            *(escape(text.replace("`", "")) for text in (each.takes, each.default, each.description)),
        )
    return table


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Facts about a bundle, as (what, value)."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a digest is there to be copied
    for what, value in facts:
        table.add_row(what, value)
    return table
