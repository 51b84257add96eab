"""What a calibration bought on this model, as people read it: the body of `POST /calibrate`'s answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.assembly import NEEDS
from app.evidence import model_evidence
from app.firewall import CalibrationContent, Firewall
from detectors.base import Access, Integers
from detectors.calibration import BenignSample, smallest_alpha
from detectors.report import Judged, detector_report, together

__all__ = ["Skipped", "calibration_report", "regression_warnings", "with_names"]

MOST_NAMED = 100  # unreadable or suspect images that are named; the rest are counted


@dataclass(frozen=True)
class Skipped:
    """A calibration image that could not be read or measured: its file or entry name, and why."""

    part: str
    detail: str


def calibration_report(
    firewall: Firewall,
    sample: BenignSample,
    content: CalibrationContent,
    skipped: Sequence[Skipped],
    engines: Mapping[str, str],
) -> dict[str, Any]:
    """JSON. `engines` says what computes each detector's scores, by its name. Blocking: detectors are scored
    again on the whole sample."""
    parts = {part.detector: part for part in content.parts}
    fixed = firewall.thresholds == "fixed"
    judged = [Judged.of(d, parts[d.name], sample, fixed=fixed) for d in firewall.detectors]
    detectors = [
        detector_report(d, parts[d.name], sample, each, fixed=fixed)
        for d, each in zip(firewall.detectors, judged, strict=True)
    ]
    info = firewall.classifier.info
    for each in detectors:
        each["engine"] = engines.get(each["detector"])
        for row in each["classes"]:
            row["name"] = info.name_of(row["label"])
    name_alternatives(detectors, Access(info.access))
    return {
        "model": {"name": info.name, "version": info.version, "digest": info.digest},
        "alpha": content.alpha,
        "images": content.images,
        "smallest_alpha": smallest_alpha(content.images) * len(detectors),
        "labelled": content.labelled,
        "benign_accuracy": benign_accuracy(sample),
        "conditioning": content.conditioning,
        "detectors": detectors,
        "together": together(judged),
        "passes": passes(detectors),
        "evidence": model_evidence(detectors, info),
        "contamination": content.screening,
        "warnings": [
            *(content.screening or {}).get("sentences", ()),
            *sample_warnings(sample, info.num_classes, skipped),
            *detector_warnings(detectors),
            *share_warnings(detectors),
            *trimming_warnings(content),
        ],
        "skipped_images": len(skipped),
        "skipped": [{"part": each.part, "detail": each.detail} for each in skipped[:MOST_NAMED]],
    }


def with_names(screening: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, Any] | None:
    """`screening` with the `suspect_parts`: the first of its suspects, by the `names` of all readable
    images."""
    if screening is None:
        return None
    named = [names[position] for position in screening["suspects"][:MOST_NAMED]] if names else []
    return {**screening, "suspect_parts": named}


def name_alternatives(detectors: Sequence[dict[str, Any]], access: Access) -> None:
    """Beside every detector without full power, set `instead` to one that may do better, and say so."""
    able = [each["detector"] for each in detectors if each["power_level"] == "has power"]
    configured = {each["detector"] for each in detectors}
    untried = [name for name, needs in NEEDS.items() if access.grants(needs) and name not in configured]
    for each in detectors:
        each["instead"] = None
        if each["power_level"] == "has power":
            continue
        if able:
            each["instead"] = able[0]
            verb = "use" if each["power_level"] == "none" else "rely there on"
            each["power"] += f"; {verb} {able[0]}{' instead' if verb == 'use' else ''}, which has power"
        elif untried:
            each["instead"] = untried[0]
            each["power"] += f"; no other detector here has more: add {untried[0]} and calibrate again"


def passes(detectors: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Forward passes per image with the plain prediction, all detectors together: `full`, and `expected` on
    benign images. SPC and NSPC share theirs. None where a detector does not know its cost."""
    names = {each["detector"] for each in detectors}
    costs = [e["cost"] for e in detectors if not (e["detector"] == "nspc" and "spc" in names)]
    if any(cost is None for cost in costs):
        return None
    return {name: 1 + sum(cost[name] for cost in costs) for name in ("full", "expected")}


def regression_warnings(regression: Mapping[str, Any] | None) -> list[str]:
    """What becomes of the images that reviewers marked as triggers."""
    if regression is None:
        return []
    count, stopped = regression["images"], regression["stopped"]
    missed = f", and lets {count - stopped} pass" if stopped < count else ""
    return [f"of {count} images that were marked as triggers this calibration stops {stopped}{missed}"]


def benign_accuracy(sample: BenignSample) -> float | None:
    """BA on the labelled benign images; None without labels."""
    return None if sample.labels is None else float((sample.labels == sample.predicted).mean())


def trimming_warnings(content: CalibrationContent) -> list[str]:
    """What an assumed contamination costs, where one was stated."""
    assumed = max((part.contamination for part in content.parts), default=0.0)
    if assumed == 0:
        return []
    return [
        f"{assumed:.0%} of the images were taken to be poisoned and trimmed: if none is, each detector may "
        f"reject up to {assumed / (1 - assumed):.1%} of benign images on top of its share of the budget"
    ]


def sample_warnings(sample: BenignSample, classes: int, skipped: Sequence[Skipped]) -> list[str]:
    """Sentences about the images themselves."""
    sentences = []
    if skipped:
        sentences.append(
            "1 image could not be used and was left out"
            if len(skipped) == 1
            else f"{len(skipped)} images could not be used and were left out"
        )
    different = distinct(sample)
    if different <= len(sample) / 2:
        sentences.append(
            f"only {different} of {len(sample)} images differ in what is seen of them: they are copies, "
            "or the classifier answers all alike. Thresholds learnt from them "
            "hold for them alone, and other benign images may all be rejected; send different images"
        )
    missing = absent(sample.predicted, classes)
    if missing:
        sentences.append(
            f"no benign image was predicted as {listing(missing)}: the budget does not hold for images "
            "predicted so, which are judged by the scores of all others"
        )
    single = [int(c) for c, n in zip(*np.unique(sample.predicted, return_counts=True), strict=True) if n == 1]
    if single:
        sentences.append(f"only one benign image was predicted as {listing(single)}: send more of these")
    accuracy = benign_accuracy(sample)
    if accuracy is not None and accuracy < 0.5:
        sentences.append(
            f"the classifier agrees with only {accuracy:.0%} of the labels: check that labels and "
            "preprocessing are those it was trained with"
        )
    return sentences


def detector_warnings(detectors: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences about what the detectors can and cannot do."""
    notes = [
        f"{each['detector']}: the fixed threshold is enforced and rejects {each['achieved_fpr']:.1%} of "
        "these benign images; no budget applies"
        for each in detectors
        if each["thresholds"] == "fixed"
    ]
    notes += [f"{each['detector']}: {note}" for each in detectors for note in each["fit"].get("notes", [])]
    weak = [each for each in detectors if each["blind_labels"]]
    return notes + [f"the power of {each['detector']} is {each['power']}" for each in weak]


def share_warnings(detectors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the shares may add up to more than the budget: what can reject nothing spends nothing."""
    idle = [each["detector"] for each in detectors if each["power_level"] == "none"]
    able = len(detectors) - len(idle)
    if not idle or not able or any(each["thresholds"] == "fixed" for each in detectors):
        return []
    return [
        f"{' and '.join(idle)} can reject nothing here and so {'spends' if len(idle) == 1 else 'spend'} "
        f"nothing of the budget: {'the other has it all' if able == 1 else f'the other {able} share it'}"
    ]


def distinct(sample: BenignSample) -> int:
    """How many of the images are not copies, by what the most telling detector measured of them."""
    widest = max((len(np.unique(each, axis=0)) for each in sample.evidence.values()), default=len(sample))
    continuous = any(not np.array_equal(each, np.round(each)) for each in sample.evidence.values())
    return widest if continuous else len(sample)  # labels alone are few: equal ones say nothing


def absent(predicted: Integers, classes: int) -> list[int]:
    """The labels 0..classes − 1 that no image was predicted as."""
    return sorted(set(range(classes)) - set(predicted.tolist()))


def listing(labels: Sequence[int], most: int = 10) -> str:
    """`label 3`, `labels 3, 5 and 12 more`."""
    shown = ", ".join(map(str, labels[:most]))
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return f"label{'s' if len(labels) > 1 else ''} {shown}{more}"
