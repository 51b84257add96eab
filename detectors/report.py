"""What a calibration buys on this model, said plainly: the figures behind "has power" and "has none"."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import Detector, Floats, Integers
from detectors.calibration import BenignSample, DetectorCalibration, cross_scores, smallest_alpha

__all__ = ["blind_labels", "detector_report", "leave_one_out_rejections", "wilson_interval"]

SATURATED = 1e-6  # closer to the maximum than this is the maximum: float32 softmax reaches no further


def wilson_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson, 1927, equation 4)."""
    if count == 0:
        return 0.0, 1.0
    share, square = hits / count, z * z
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def blind_labels(detector: Detector, part: DetectorCalibration) -> npt.NDArray[np.int64]:
    """Labels whose threshold is the largest possible score: nothing predicted as such a label can ever be
    rejected, benign or not."""
    maxima = detector.maxima(part.fit)
    return np.flatnonzero(part.thresholds(len(maxima)) >= maxima)


def leave_one_out_rejections(
    part: DetectorCalibration, scores: Floats, predicted: Integers
) -> npt.NDArray[np.bool_]:
    """(m,): would this benign image be rejected, had the threshold been set by the others alone?

    On its own calibration set a conformal threshold looks better than it is; left out, every image is
    judged as a new one would be.
    """
    rejected = np.zeros(len(scores), dtype=np.bool_)
    for label in np.unique(predicted):
        group = part.benign_scores(int(label))
        mine = predicted == label
        at_least = len(group) - np.searchsorted(group, scores[mine], side="left")  # itself included
        rejected[mine] = at_least <= part.alpha * len(group) + 1e-9
    return rejected


def detector_report(
    detector: Detector, part: DetectorCalibration, sample: BenignSample, *, fixed: bool = False
) -> dict[str, Any]:
    """Everything an operator should know about one calibrated detector; JSON. With `fixed` the paper's own
    threshold is enforced and reported on, which keeps no budget."""
    scores = cross_scores(detector, sample, part.contamination)
    maxima = detector.maxima(part.fit)
    if fixed:
        thresholds = detector.fixed_thresholds(part.fit)
        above = scores > thresholds[sample.predicted]
    else:
        thresholds = part.thresholds(len(maxima))
        above = leave_one_out_rejections(part, scores, sample.predicted)
    saturated = scores >= maxima[sample.predicted] - SATURATED
    blind = np.flatnonzero(thresholds >= maxima - SATURATED)
    low, high = wilson_interval(int(above.sum()), len(sample))
    return {
        "detector": detector.name,
        "settings": detector.settings(),
        "fit": dict(part.fit),
        "thresholds": "fixed" if fixed else "conformal",
        "alpha": part.alpha,
        "smallest_alpha": smallest_alpha(len(sample)),
        "achieved_fpr": float(above.mean()),
        "achieved_fpr_interval": [low, high],
        "saturation": float(saturated.mean()),
        "score_quantiles": quantiles(scores),
        "blind_labels": blind.tolist(),
        "power": verdict_in_words(len(blind), len(maxima), float(saturated.mean())),
        "classes": [
            class_report(label, scores, above, saturated, sample, float(thresholds[label]), part)
            for label in range(len(maxima))
        ],
    }


def quantiles(scores: Floats) -> dict[str, float]:
    """Selected quantiles of (m,) scores by name."""
    levels = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99, "max": 1.0}
    return {name: float(np.quantile(scores, level)) for name, level in levels.items()}


def class_report(
    label: int,
    scores: Floats,
    above: npt.NDArray[np.bool_],
    saturated: npt.NDArray[np.bool_],
    sample: BenignSample,
    threshold: float,
    part: DetectorCalibration,
) -> dict[str, Any]:
    """The figures of one predicted label; None where no benign image was predicted as it."""
    chosen = sample.predicted == label
    count = int(chosen.sum())
    return {
        "label": label,
        "images": count,
        "threshold": None if math.isinf(threshold) else threshold,
        "compared_with": len(part.benign_scores(label)),
        "achieved_fpr": float(above[chosen].mean()) if count else None,
        "saturation": float(saturated[chosen].mean()) if count else None,
        "median_score": float(np.median(scores[chosen])) if count else None,
    }


def verdict_in_words(blind: int, classes: int, saturation: float) -> str:
    """Power as far as benign images can show it: can a triggered image be rejected at all?"""
    if blind == classes:
        return (
            f"none: {saturation:.0%} of benign images already have the highest possible score, so nothing "
            "can be rejected within this budget"
        )
    if blind:
        return f"weak: no power against a trigger whose target is one of {blind} of the {classes} labels"
    return "has power: triggered images can score above every label's threshold"
