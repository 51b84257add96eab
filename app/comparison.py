"""Two calibrations side by side, and what changed between them in words."""

from collections.abc import Sequence
from typing import Any

from app.storage.calibrations import Record

__all__ = ["compare"]

Figures = dict[str, Any]


def compare(a: Record, b: Record, fits_a: str | None, fits_b: str | None) -> Figures:
    """JSON; `fits_*` is the reason why a calibration cannot be enforced here, or None."""
    detectors = [
        _detector(name, _part(a, name), _part(b, name)) for name in dict.fromkeys(_names(a) + _names(b))
    ]
    return {
        "a": _side(a, fits_a),
        "b": _side(b, fits_b),
        "detectors": detectors,
        "differences": _general(a, b) + [s for each in detectors for s in each["differences"]],
    }


def _side(record: Record, misfit: str | None) -> Figures:
    report = record.report
    return {
        "id": record.id,
        "created_at": record.created_at.isoformat(),
        "model": {"name": record.model_name, "version": record.model_version},
        "classifier_digest": record.classifier_digest,
        "alpha": record.alpha,
        "images": record.images,
        "labelled": report.get("labelled"),
        "benign_accuracy": report.get("benign_accuracy"),
        "conditioning": report.get("conditioning"),
        "fits": misfit is None,
        "misfit": misfit,
    }


def _names(record: Record) -> list[str]:
    return [part["detector"] for part in record.report["detectors"]]


def _part(record: Record, name: str) -> Figures | None:
    return next((part for part in record.report["detectors"] if part["detector"] == name), None)


def _detector(name: str, a: Figures | None, b: Figures | None) -> Figures:
    labels = max(len(part["classes"]) for part in (a, b) if part is not None)
    return {
        "detector": name,
        "a": _summary(a),
        "b": _summary(b),
        "thresholds": [
            {"label": label, "a": _threshold(a, label), "b": _threshold(b, label)} for label in range(labels)
        ],
        "differences": _changes(name, a, b),
    }


def _summary(part: Figures | None) -> Figures | None:
    if part is None:
        return None
    names = ("alpha", "achieved_fpr", "achieved_fpr_interval", "saturation", "blind_labels", "power")
    return {**{name: part[name] for name in names}, "k": part["fit"].get("k"), "settings": part["settings"]}


def _threshold(part: Figures | None, label: int) -> float | None:
    if part is None or label >= len(part["classes"]):
        return None
    value: float | None = part["classes"][label]["threshold"]
    return value


def _general(a: Record, b: Record) -> list[str]:
    """Sentences from `a` to `b` about the calibrations as wholes."""
    said = []
    if a.classifier_digest != b.classifier_digest:
        said.append(
            f"they belong to different classifiers: {a.model_name} {a.model_version} "
            f"({a.classifier_digest[:12]}) and {b.model_name} {b.model_version} ({b.classifier_digest[:12]})"
        )
    if a.alpha != b.alpha:
        said.append(f"the false-positive budget goes from {a.alpha:.2%} to {b.alpha:.2%}")
    if a.images != b.images:
        said.append(f"the benign images go from {a.images} to {b.images}")
    doubtful = [_doubtful(record) for record in (a, b)]
    if doubtful[0] != doubtful[1]:
        side = "first" if doubtful[0] else "second"
        said.append(f"the {side} was made with labels that the classifier mostly disagrees with")
    return said


def _doubtful(record: Record) -> bool:
    accuracy = record.report.get("benign_accuracy")
    return accuracy is not None and accuracy < 0.5


def _changes(name: str, a: Figures | None, b: Figures | None) -> list[str]:
    """Sentences from `a` to `b` about one detector."""
    if a is None or b is None:
        return [f"{name} watches only in the {'second' if a is None else 'first'}"]
    said = []
    if a["settings"] != b["settings"]:
        said.append(f"{name}: its settings differ")
    k = a["fit"].get("k"), b["fit"].get("k")
    if k[0] != k[1]:
        said.append(f"{name}: k goes from {k[0]} to {k[1]}")
    if _level(a) != _level(b):
        said.append(f"{name}: its power goes from “{_level(a)}” to “{_level(b)}”")
    said += _blindness(name, a["blind_labels"], b["blind_labels"])
    if _apart(a["achieved_fpr_interval"], b["achieved_fpr_interval"]):
        said.append(
            f"{name}: the achieved false-positive rate goes from {a['achieved_fpr']:.2%} to "
            f"{b['achieved_fpr']:.2%}, more than chance explains"
        )
    return said + _moved(name, a, b)


def _level(part: Figures) -> str:
    words: str = part["power"]
    return words.partition(":")[0]


def _blindness(name: str, a: Sequence[int], b: Sequence[int]) -> list[str]:
    gained, lost = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    said = [f"{name}: it can now reject images predicted as {_listing(gained)}"] if gained else []
    return said + ([f"{name}: it can no longer reject images predicted as {_listing(lost)}"] if lost else [])


def _apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """True where two confidence intervals have nothing in common."""
    return a[1] < b[0] or b[1] < a[0]


def _moved(name: str, a: Figures, b: Figures) -> list[str]:
    """The label whose threshold moved most, in the units of the scores."""
    pairs = [
        (label, _threshold(a, label), _threshold(b, label))
        for label in range(min(len(a["classes"]), len(b["classes"])))
    ]
    moves = [(abs(y - x), label, x, y) for label, x, y in pairs if x is not None and y is not None and x != y]
    if not moves:
        return []
    _, label, before, after = max(moves)
    return [
        f"{name}: {len(moves)} of {len(pairs)} thresholds differ, most for label {label}: "
        f"{before:.4g} to {after:.4g}"
    ]


def _listing(labels: Sequence[int], most: int = 10) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(map(str, labels[:most])) + more
