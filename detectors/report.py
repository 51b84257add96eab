"""What a calibration buys on this model, said plainly: the figures behind "has power" and "has none"."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detectors.base import Detector, Floats, Integers
from detectors.behaviour import Costed, Describing
from detectors.calibration import BenignSample, DetectorCalibration, calibration_scores, smallest_alpha
from detectors.histogram import Bins, quantiles
from detectors.references import without_references

__all__ = [
    "Judged",
    "PowerLevel",
    "blind_labels",
    "detector_report",
    "leave_one_out_rejections",
    "together",
    "verdict_in_words",
    "wilson_interval",
]

Booleans = npt.NDArray[np.bool_]
PowerLevel = Literal["has power", "weak", "none"]

NAMED = 10  # labels that a sentence lists
SATURATED = 1e-6  # closer to the maximum than this is the maximum: float32 softmax reaches no further


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson, 1927, equation 4)."""
    if count == 0:
        return 0.0, 1.0
    share, square = hits / count, z * z
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    # Without hits the lower end is 0, and without misses the upper one 1, but for rounding.
    return centre - half if hits else 0.0, centre + half if hits < count else 1.0


def blind_labels(detector: Detector, part: DetectorCalibration) -> Integers:
    """Labels whose threshold is the largest possible score: nothing predicted as such a label can ever be
    rejected, benign or not."""
    maxima = detector.maxima(part.fit)
    return np.flatnonzero(part.thresholds(len(maxima)) >= maxima)


def leave_one_out_rejections(part: DetectorCalibration, scores: Floats, predicted: Integers) -> Booleans:
    """(m,): would this benign image be rejected, had the threshold been set by the others alone?

    On its own calibration set a conformal threshold looks better than it is; left out, every image is
    judged as a new one would be. An image whose score is not in its group, as it sets no threshold, is new.
    """
    rejected = np.zeros(len(scores), dtype=np.bool_)
    for label in np.unique(predicted):
        group = part.benign_scores(int(label))
        mine = predicted == label
        new = ~np.isin(scores[mine], group)
        at_least = len(group) - np.searchsorted(group, scores[mine], side="left") + new  # itself included
        rejected[mine] = at_least <= part.alpha * (len(group) + new) + 1e-9
    return rejected


@dataclass(frozen=True)
class Judged:
    """One detector on its own benign sample, each image (m,) judged as a new one would be; `maxima` and
    `thresholds` are per label (K,)."""

    scores: Floats
    predicted: Integers
    rejected: Booleans
    saturated: Booleans
    maxima: Floats
    thresholds: Floats

    @classmethod
    def of(
        cls, detector: Detector, part: DetectorCalibration, sample: BenignSample, *, fixed: bool = False
    ) -> "Judged":
        scores = calibration_scores(detector, sample, part.fit, part.contamination)
        predicted = sample.predicted
        maxima = detector.maxima(part.fit)
        if fixed:
            thresholds = detector.fixed_thresholds(part.fit)
            rejected = scores > thresholds[predicted]
        else:
            thresholds = part.thresholds(len(maxima))
            rejected = leave_one_out_rejections(part, scores, predicted)
        saturated = scores >= maxima[predicted] - SATURATED
        return cls(scores, predicted, rejected, saturated, maxima, thresholds)

    @property
    def blind(self) -> list[int]:
        """Labels at which nothing can be rejected."""
        return np.flatnonzero(self.thresholds >= self.maxima - SATURATED).tolist()


def detector_report(
    detector: Detector,
    part: DetectorCalibration,
    sample: BenignSample,
    judged: Judged | None = None,
    *,
    fixed: bool = False,
) -> dict[str, Any]:
    """Everything an operator should know about one calibrated detector, `judged` on `sample` or to be; JSON.
    With `fixed` the paper's own threshold is enforced and reported on, which keeps no budget."""
    judged = judged or Judged.of(detector, part, sample, fixed=fixed)
    bins = Bins.around(judged.scores, judged.thresholds, judged.maxima)
    classes = [class_report(label, judged, part, bins) for label in range(len(judged.maxima))]
    level, why = verdict_in_words(judged.blind, judged.saturated, judged.predicted, len(classes))
    return {
        "detector": detector.name,
        "settings": detector.settings(),
        "fit": without_references(part.fit),
        "thresholds": "fixed" if fixed else "conformal",
        "alpha": part.alpha,
        "smallest_alpha": smallest_alpha(len(sample)),
        "achieved_fpr": float(judged.rejected.mean()),
        "achieved_fpr_interval": interval(judged.rejected),
        "saturation": float(judged.saturated.mean()),
        "score_quantiles": quantiles(judged.scores),
        "histogram": bins.to_json(judged.scores),
        "blind_labels": judged.blind,
        "power_level": level,
        "power": f"{level}: {why}",
        "cost": cost(detector, part, sample, judged),
        "behaviour": behaviour(detector, part, sample),
        "classes": classes,
    }


def together(judged: Sequence[Judged]) -> dict[str, Any]:
    """What all detectors, each `judged` on the same images, cost in good images: any one of them rejects."""
    rejected = np.logical_or.reduce([each.rejected for each in judged])
    return {"achieved_fpr": float(rejected.mean()), "achieved_fpr_interval": interval(rejected)}


def class_report(label: int, judged: Judged, part: DetectorCalibration, bins: Bins) -> dict[str, Any]:
    """The figures of one predicted label; None where no benign image was predicted as it."""
    chosen = judged.predicted == label
    count = int(chosen.sum())
    scores = judged.scores[chosen]
    return {
        "label": label,
        "images": count,
        "threshold": finite(judged.thresholds[label]),
        "maximum": finite(judged.maxima[label]),
        "compared_with": len(part.benign_scores(label)),
        "achieved_fpr": float(judged.rejected[chosen].mean()) if count else None,
        "achieved_fpr_interval": interval(judged.rejected[chosen]) if count else None,
        "saturation": float(judged.saturated[chosen].mean()) if count else None,
        "median_score": float(np.median(scores)) if count else None,
        "histogram": bins.counts(scores) if count else None,
    }


def cost(
    detector: Detector, part: DetectorCalibration, sample: BenignSample, judged: Judged
) -> dict[str, float] | None:
    """Forward passes per image beyond the plain prediction; None where the detector does not know them."""
    if not isinstance(detector, Costed):
        return None
    limits = judged.thresholds[sample.predicted]
    evidence = sample.evidence[detector.name]
    return asdict(detector.cost(evidence, sample.predicted, part.fit, limits, part.stages))


def behaviour(detector: Detector, part: DetectorCalibration, sample: BenignSample) -> dict[str, Any] | None:
    """How the model behaves under the detector's question; None where it has nothing to say."""
    if not isinstance(detector, Describing):
        return None
    return detector.describe(sample.evidence[detector.name], sample.predicted, part.fit)


def interval(hits: Booleans) -> list[float]:
    """95 % confidence interval of a share, as JSON."""
    return list(wilson_interval(int(hits.sum()), len(hits)))


def finite(value: float) -> float | None:
    """JSON has no infinity: a threshold that nothing exceeds, or a score without a maximum, is None."""
    return float(value) if math.isfinite(value) else None


def verdict_in_words(
    blind: list[int], saturated: Booleans, predicted: Integers, classes: int
) -> tuple[PowerLevel, str]:
    """Power as far as benign images can show it: can a triggered image be rejected at all?

    A detector is blind where the threshold that the budget asks for is the largest score possible.
    """
    if len(blind) == classes:
        return "none", (
            f"{saturated.mean():.0%} of benign images already have the highest possible score, so nothing "
            "can be rejected within this budget"
        )
    if not blind:
        return "has power", "triggered images can score above every label's threshold"
    chosen = np.isin(predicted, blind)
    why = "no benign image was predicted so"
    if chosen.any():
        share = saturated[chosen].mean()
        why = f"{share:.0%} of the benign images predicted so already have the highest possible score"
    named = ", ".join(map(str, blind[:NAMED])) + (", …" if len(blind) > NAMED else "")
    target = f"one of {len(blind)} of the {classes} labels ({named})"
    return "weak", f"no power against a trigger whose target is {target}: {why}"
