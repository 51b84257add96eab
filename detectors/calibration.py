"""Benign images → what one detector enforces: its fit, its thresholds per predicted class, its p-values.

Conditioning on the predicted class (Mondrian conformal prediction: Vovk, Gammerman and Shafer, 2005,
section 4.5) keeps the budget within each class, so that a class whose benign scores are high does not use
it up for the others. The numbers themselves are in `detectors.conformal`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detectors.base import CalibrationError, Detector, Fit, Floats, InputError, Integers, Stages
from detectors.conformal import (
    Ties,
    conformal_threshold,
    images_needed,
    p_values,
    smallest_alpha,
    tie_probability,
    without_highest,
)
from detectors.grouping import Group, group_by_label
from detectors.references import References

__all__ = [
    "BenignSample",
    "Conditioning",
    "DetectorCalibration",
    "Group",
    "Ties",
    "calibrate",
    "calibration_scores",
    "conformal_threshold",
    "cross_scores",
    "group_by_label",
    "images_needed",
    "p_values",
    "robust_fit",
    "smallest_alpha",
    "with_thresholds",
]

Conditioning = Literal["class", "marginal"]
FOLDS = 5
CONCENTRATION_STEPS = 2


@dataclass(frozen=True)
class BenignSample:
    """What was measured of m benign images: `predicted` (m,), `labels` (m,) or None, and the evidence
    (m, F) of every detector by name. `references` are other images, with which these were compared."""

    predicted: Integers
    labels: Integers | None
    evidence: Mapping[str, Floats]
    references: References = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.predicted)

    def take(self, rows: npt.NDArray[Any]) -> "BenignSample":
        """The images at `rows`, a mask or positions."""
        labels = None if self.labels is None else self.labels[rows]
        evidence = {name: values[rows] for name, values in self.evidence.items()}
        return BenignSample(self.predicted[rows], labels, evidence, self.references)

    @classmethod
    def join(cls, parts: Sequence["BenignSample"], labels: Integers | None) -> "BenignSample":
        """The batches of one sample put together, with the true labels (m,) where they are known.

        Raises `InputError` where they were compared with different references: their evidence differs.
        """
        references = parts[0].references
        if any(part.references != references for part in parts):
            raise InputError("batches compared with different references are no one sample")
        evidence = {name: np.concatenate([p.evidence[name] for p in parts]) for name in parts[0].evidence}
        predicted = np.concatenate([part.predicted for part in parts])
        return cls(predicted, labels, evidence, references)


def robust_fit(
    detector: Detector,
    evidence: Floats,
    predicted: Integers,
    labels: Integers | None,
    contamination: float = 0.0,
) -> Fit:
    """Fit on the images that look most usual: all but the ⌈contamination · m⌉ with the highest scores, found
    by concentration steps (Rousseeuw and Van Driessen, Technometrics 41, 1999)."""
    fit = detector.fit(evidence, predicted, labels)
    kept = len(evidence) - math.ceil(contamination * len(evidence))
    for _ in range(CONCENTRATION_STEPS if 0 < kept < len(evidence) else 0):
        usual = np.argsort(detector.score(evidence, predicted, fit), kind="stable")[:kept]
        fit = detector.fit(evidence[usual], predicted[usual], None if labels is None else labels[usual])
    return fit


def cross_scores(
    detector: Detector, sample: BenignSample, contamination: float = 0.0, seed: int = 0
) -> Floats:
    """Scores (m,) of the benign images, each by a fit that did not see it (K-fold cross-fitting)."""
    evidence = sample.evidence[detector.name]
    fold = np.random.default_rng(seed).permutation(len(sample)) % min(FOLDS, len(sample))
    scores = np.empty(len(sample))
    for number in range(fold.max() + 1):
        held, rest = fold == number, fold != number
        if not rest.any():
            rest = held  # a single image: there is nothing else to learn from
        labels = None if sample.labels is None else sample.labels[rest]
        fit = robust_fit(detector, evidence[rest], sample.predicted[rest], labels, contamination)
        scores[held] = detector.score(evidence[held], sample.predicted[held], fit)
    return scores


def calibration_scores(
    detector: Detector, sample: BenignSample, fit: Fit, contamination: float = 0.0
) -> Floats:
    """Scores (m,) that set thresholds: cross-fitted, or by `fit`, which will serve, where that is higher.

    Cross-fitting alone scatters scores that are tied in service: NSPC has six levels, and every fold learns
    their units anew. The threshold may then lie amid the scores of a level that is rejected as a whole.
    """
    served = detector.score(sample.evidence[detector.name], sample.predicted, fit)
    scores: Floats = np.maximum(cross_scores(detector, sample, contamination), served)
    return scores


@dataclass(frozen=True)
class DetectorCalibration:
    """One detector's part of a calibration; `alpha` is its share of the false-positive budget.

    `groups` partition the predicted labels seen in the benign sample. `pooled` (m,), all sorted scores,
    serves for labels that were never seen, and for all of them where the calibration is marginal.
    Under randomised `ties` a share of the images whose score is the threshold exactly is suspicious too.
    The highest scores of every group, a share `contamination`, are left out.
    `stages` is the cheapest order of evaluation; it changes no verdict.
    """

    detector: str
    settings: Mapping[str, Any]
    fit: Fit
    alpha: float
    groups: tuple[Group, ...]
    pooled: Floats
    stages: Stages = ()
    ties: Ties = "conservative"
    contamination: float = 0.0

    def benign_scores(self, label: int) -> Floats:
        """The sorted benign scores that an image predicted as `label` is compared with."""
        return next((group.scores for group in self.groups if label in group.labels), self.pooled)

    def thresholds(self, classes: int) -> Floats:
        """(classes,) thresholds by predicted label."""
        return np.array([conformal_threshold(self.benign_scores(c), self.alpha) for c in range(classes)])

    def tie_probabilities(self, classes: int) -> Floats:
        """(classes,) shares of images at the threshold exactly that are suspicious, by predicted label."""
        if self.ties == "conservative":
            return np.zeros(classes)
        return np.array([tie_probability(self.benign_scores(c), self.alpha) for c in range(classes)])

    def p_value(self, label: int, score: float, draw: float = 0.0) -> float:
        """The p-value of one image; `draw` in [0, 1) is the image's own and counts under randomised ties."""
        draws = np.array([draw]) if self.ties == "randomised" else None
        return float(p_values(self.benign_scores(label), np.array([score]), draws)[0])

    def to_json(self) -> dict[str, Any]:
        groups = [{"labels": list(g.labels), "scores": g.scores.tolist()} for g in self.groups]
        return {
            "detector": self.detector, "settings": dict(self.settings), "fit": dict(self.fit),
            "alpha": self.alpha, "groups": groups, "pooled": self.pooled.tolist(),
            "stages": [list(stage) for stage in self.stages], "ties": self.ties,
            "contamination": self.contamination,
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DetectorCalibration":
        groups = tuple(
            Group(tuple(g["labels"]), np.array(g["scores"], dtype=np.float64)) for g in content["groups"]
        )
        pooled = np.array(content["pooled"], dtype=np.float64)
        known = {name: content[name] for name in ("detector", "settings", "fit", "alpha", "stages")}
        ties = content.get("ties", "conservative")  # older calibrations know no others
        contamination = content.get("contamination", 0.0)
        return cls(**known, groups=groups, pooled=pooled, ties=ties, contamination=contamination)


def calibrate(
    detector: Detector,
    sample: BenignSample,
    alpha: float,
    by: Conditioning = "class",
    ties: Ties = "conservative",
    contamination: float = 0.0,
) -> DetectorCalibration:
    """Fit `detector` on all benign images, and calibrate it at budget `alpha`.

    A share `contamination` in [0, 0.5) of each label's images may be poisoned: fit and thresholds withstand
    it, at the price that `detectors.conformal.without_highest` states.

    Raises `CalibrationError` where the images are too few for α, or a score is not a number.
    """
    _require_enough(sample, alpha, contamination)
    evidence = sample.evidence[detector.name]
    fit = robust_fit(detector, evidence, sample.predicted, sample.labels, contamination)
    scores = calibration_scores(detector, sample, fit, contamination)
    part = with_thresholds(detector, fit, scores, sample, alpha, by, ties, contamination)
    limits = part.thresholds(int(sample.predicted.max()) + 1)[sample.predicted]
    return replace(part, stages=detector.plan(evidence, sample.predicted, fit, limits))


def with_thresholds(
    detector: Detector,
    fit: Fit,
    scores: Floats,
    sample: BenignSample,
    alpha: float,
    by: Conditioning = "class",
    ties: Ties = "conservative",
    contamination: float = 0.0,
) -> DetectorCalibration:
    """The calibration that `calibration_scores` (m,) of `sample` make at budget `alpha`, with stages still
    unplanned. Raises `CalibrationError`."""
    _require_enough(sample, alpha, contamination)
    if not np.isfinite(scores).all():
        raise CalibrationError(
            f"{detector.name} gave scores that are not numbers for {int((~np.isfinite(scores)).sum())} of "
            f"{len(scores)} benign images: the network overflows; serve it in float32 or lower omega"
        )
    groups = group_by_label(scores, sample.predicted, alpha, contamination) if by == "class" else ()
    return DetectorCalibration(
        detector.name,
        detector.settings(),
        fit,
        alpha,
        tuple(Group(group.labels, without_highest(group.scores, contamination)) for group in groups),
        without_highest(np.sort(scores), contamination),
        ties=ties,
        contamination=contamination,
    )


def _require_enough(sample: BenignSample, alpha: float, contamination: float) -> None:
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha must lie between 0 and 1, not {alpha}")
    if not 0 <= contamination < 0.5:
        raise CalibrationError(f"contamination must be at least 0 and less than 0.5, not {contamination}")
    needed = images_needed(alpha, contamination)
    if len(sample) < needed:
        raise CalibrationError(
            f"{len(sample)} benign images support a false-positive budget of "
            f"{smallest_alpha(math.floor(len(sample) * (1 - contamination))):.4g} per detector at the least, "
            f"not {alpha:.4g}: send at least {needed} images, or raise alpha"
        )
