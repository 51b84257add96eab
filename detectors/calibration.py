"""Benign scores → thresholds and p-values at a false-positive budget (split conformal prediction).

p(x) = (1 + #{benign scores ≥ s(x)}) / (m + 1); an image is suspicious when p ≤ α. Exchangeable benign
images then have P(p ≤ α) ≤ α whatever the detector and whatever ties there are (Vovk, Gammerman and
Shafer, 2005, section 2.2). Conditioning on the predicted class (Mondrian, section 4.5) keeps the budget
within each class, so that a class whose benign scores are high does not use it up for the others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from detectors.base import CalibrationError, Detector, Fit, Floats, InputError, Integers, Stages
from detectors.references import References

__all__ = [
    "BenignSample",
    "Conditioning",
    "DetectorCalibration",
    "Group",
    "calibrate",
    "conformal_threshold",
    "cross_scores",
    "images_needed",
    "p_values",
    "smallest_alpha",
]

Conditioning = Literal["class", "marginal"]
FOLDS = 5


def smallest_alpha(count: int) -> float:
    """The smallest budget that `count` benign scores support: 1 / (m + 1)."""
    return 1 / (count + 1)


def images_needed(alpha: float) -> int:
    """The fewest benign scores that support the budget `alpha`: ⌈1/α⌉ − 1."""
    return math.ceil(1 / alpha - 1e-9) - 1


def conformal_threshold(scores: Floats, alpha: float) -> float:
    """The T for which `score > T` says the same as `p ≤ alpha`; +inf where no score can be that rare.

    p ≤ α means that at most r − 1 of the m benign scores are ≥ s, with r = ⌊α (m + 1)⌋: s lies strictly
    above the r-th largest of them.
    """
    rank = math.floor(alpha * (len(scores) + 1) + 1e-9)  # 0.01 · 100 must be 1, not 0.99…
    if rank < 1:
        return math.inf
    return float(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def p_values(benign: Floats, scores: Floats) -> Floats:
    """Conformal p-values of `scores` (B,) against sorted `benign` (m,); NaN counts as most suspicious."""
    at_least = len(benign) - np.searchsorted(benign, scores, side="left")
    return np.where(np.isnan(scores), 1.0, 1.0 + at_least) / (len(benign) + 1)


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


def cross_scores(detector: Detector, sample: BenignSample, seed: int = 0) -> Floats:
    """Scores (m,) of the benign images, each by a fit that did not see it (K-fold cross-fitting)."""
    evidence = sample.evidence[detector.name]
    fold = np.random.default_rng(seed).permutation(len(sample)) % min(FOLDS, len(sample))
    scores = np.empty(len(sample))
    for number in range(fold.max() + 1):
        held, rest = fold == number, fold != number
        if not rest.any():
            rest = held  # a single image: there is nothing else to learn from
        labels = None if sample.labels is None else sample.labels[rest]
        fit = detector.fit(evidence[rest], sample.predicted[rest], labels)
        scores[held] = detector.score(evidence[held], sample.predicted[held], fit)
    return scores


@dataclass(frozen=True)
class Group:
    """Predicted `labels` that share one threshold, and their sorted benign `scores` (m,)."""

    labels: tuple[int, ...]
    scores: Floats


@dataclass(frozen=True)
class DetectorCalibration:
    """One detector's part of a calibration; `alpha` is its share of the false-positive budget.

    `groups` partition the predicted labels seen in the benign sample. `pooled` (m,), all sorted scores,
    serves for labels that were never seen, and for all of them where the calibration is marginal.
    `stages` is the cheapest order of evaluation; it changes no verdict.
    """

    detector: str
    settings: Mapping[str, Any]
    fit: Fit
    alpha: float
    groups: tuple[Group, ...]
    pooled: Floats
    stages: Stages = ()

    def benign_scores(self, label: int) -> Floats:
        """The sorted benign scores that an image predicted as `label` is compared with."""
        return next((group.scores for group in self.groups if label in group.labels), self.pooled)

    def thresholds(self, classes: int) -> Floats:
        """(classes,) thresholds by predicted label."""
        return np.array([conformal_threshold(self.benign_scores(c), self.alpha) for c in range(classes)])

    def p_value(self, label: int, score: float) -> float:
        return float(p_values(self.benign_scores(label), np.array([score]))[0])

    def to_json(self) -> dict[str, Any]:
        groups = [{"labels": list(g.labels), "scores": g.scores.tolist()} for g in self.groups]
        return {
            "detector": self.detector, "settings": dict(self.settings), "fit": dict(self.fit),
            "alpha": self.alpha, "groups": groups, "pooled": self.pooled.tolist(),
            "stages": [list(stage) for stage in self.stages],
        }  # fmt: skip

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DetectorCalibration":
        groups = tuple(
            Group(tuple(g["labels"]), np.array(g["scores"], dtype=np.float64)) for g in content["groups"]
        )
        pooled = np.array(content["pooled"], dtype=np.float64)
        known = {name: content[name] for name in ("detector", "settings", "fit", "alpha", "stages")}
        return cls(**known, groups=groups, pooled=pooled)


def group_by_label(scores: Floats, predicted: Integers, alpha: float) -> tuple[Group, ...]:
    """One group for every predicted label with enough benign images for α; the others share groups.

    Labels that are too few to stand alone are put beside labels with a similar mean score until each
    group is large enough, so that one label whose benign scores are high (a sink class) does not take
    the power away from all the others.
    """
    needed = images_needed(alpha)
    labels, counts = np.unique(predicted, return_counts=True)
    means = np.array([scores[predicted == label].mean() for label in labels])
    groups: list[list[int]] = [[int(n)] for n, c in zip(labels, counts, strict=True) if c >= needed]
    small: list[list[int]] = [[]]
    gathered = 0
    for position in np.argsort(means, kind="stable"):
        if counts[position] >= needed:
            continue
        if gathered >= needed:
            small.append([])
            gathered = 0
        small[-1].append(int(labels[position]))
        gathered += int(counts[position])
    if gathered < needed:
        rest = small.pop()
        _join_nearest(groups, small, rest, dict(zip(labels.tolist(), means.tolist(), strict=True)))
    groups += small
    return tuple(Group(tuple(sorted(g)), np.sort(scores[np.isin(predicted, g)])) for g in groups)


def _join_nearest(
    large: list[list[int]], small: list[list[int]], rest: list[int], means: Mapping[int, float]
) -> None:
    """Put labels that are too few even together into the group with the nearest mean score.

    Judged by all scores instead, they would spend the whole budget once more, on top of what the other
    groups spend within themselves. Where there is no other group, they are one.
    """
    if not rest:
        return
    groups = [*large, *small]
    if not groups:
        small.append(rest)
        return

    def mean(group: Sequence[int]) -> float:
        return float(np.mean([means[label] for label in group]))

    min(groups, key=lambda group: abs(mean(group) - mean(rest))).extend(rest)


def calibrate(
    detector: Detector, sample: BenignSample, alpha: float, by: Conditioning = "class"
) -> DetectorCalibration:
    """Fit `detector` on all benign images, and calibrate it at budget `alpha` with cross-fitted scores.

    Raises `CalibrationError` where the images are too few for α, or a score is not a number.
    """
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha must lie between 0 and 1, not {alpha}")
    if len(sample) < images_needed(alpha):
        raise CalibrationError(
            f"{len(sample)} benign images support a false-positive budget of "
            f"{smallest_alpha(len(sample)):.4g} per detector at the least, not {alpha:.4g}: send at least "
            f"{images_needed(alpha)} images, or raise alpha"
        )
    evidence = sample.evidence[detector.name]
    fit = detector.fit(evidence, sample.predicted, sample.labels)
    scores = cross_scores(detector, sample)
    if not np.isfinite(scores).all():
        raise CalibrationError(
            f"{detector.name} gave scores that are not numbers for {int((~np.isfinite(scores)).sum())} of "
            f"{len(scores)} benign images: the network overflows; serve it in float32 or lower omega"
        )
    groups = group_by_label(scores, sample.predicted, alpha) if by == "class" else ()
    part = DetectorCalibration(detector.name, detector.settings(), fit, alpha, groups, np.sort(scores))
    limits = part.thresholds(int(sample.predicted.max()) + 1)[sample.predicted]
    return replace(part, stages=detector.plan(evidence, sample.predicted, fit, limits))
