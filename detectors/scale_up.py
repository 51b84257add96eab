"""SCALE-UP: does the prediction survive pixel scaling? (Guo et al., ICLR 2023, arXiv:2302.03251)

SPC(x) = |{s ∈ S : C(clip(s·x, 0, 1)) = C(x)}| / |S|        (equation 1; data-free)
NSPC(x) = (SPC(x) − μ_ŷ) / σ_ŷ                              (section 4.3; with benign images)

A triggered image keeps its label when its pixels are multiplied; a benign one usually loses it.
Scaling happens in pixel space, before the classifier's own normalisation. Needs labels only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors.base import (
    Access,
    BasePass,
    CalibrationError,
    Classifier,
    Fit,
    Floats,
    InputError,
    Integers,
    Scores,
    Stages,
)
from detectors.behaviour import Cost, collapse
from detectors.early_exit import bounded_mean, mean_of
from detectors.stages import cheapest_stages, expected_cost

__all__ = ["PAPER_SCALES", "PAPER_THRESHOLD", "ScaleUp", "ScaleUpScorer", "scaled_copies"]

PAPER_SCALES = (3.0, 5.0, 7.0, 9.0, 11.0)
PAPER_THRESHOLD = 0.5
SIGMA_FLOOR = 0.05  # a quarter of a step of the six-level score: below it a difference is no evidence
PRIOR_WEIGHT = 10.0  # the pooled statistics count as this many images of every class


def scaled_copies(images: Tensor, scales: Sequence[float]) -> Tensor:
    """clip(s · x, 0, 1) for every scale: (B, C, H, W) in [0, 1] → (len(scales) · B, C, H, W)."""
    return torch.cat([(images * scale).clamp(0, 1) for scale in scales])


def agrees(logits: Tensor, labels: Tensor) -> Tensor:
    """(R, n): 1 where `logits` (n, R, K) keep the label (R,). An answer that is not a number counts as
    agreement, the suspicious side: it must clear nobody."""
    return ((logits.argmax(2) == labels) | logits.isnan().any(2)).T.float()


def shrunken_statistics(scores: Floats, predicted: Integers, classes: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation of benign scores per predicted class, each (classes,).

    Class statistics are shrunk towards the pooled ones in proportion to how few images the class has,
    and σ is floored: σ = 0 is common (every benign image of a class may score the same), and no class,
    not even one without images, may divide by zero.
    """
    counts = np.bincount(predicted, minlength=classes)
    sums = np.bincount(predicted, scores, minlength=classes)
    means = (sums + PRIOR_WEIGHT * scores.mean()) / (counts + PRIOR_WEIGHT)
    squares = np.bincount(predicted, (scores - means[predicted]) ** 2, minlength=classes)
    variances = (squares + PRIOR_WEIGHT * scores.var()) / (counts + PRIOR_WEIGHT)
    return means, np.maximum(np.sqrt(variances), SIGMA_FLOOR)


class ScaleUp:
    """SPC, or NSPC with `normalised=True`; satisfies `detectors.base.Detector`."""

    needs = Access.LABELS

    def __init__(
        self, classifier: Classifier, scales: Sequence[float] = PAPER_SCALES, *, normalised: bool = False
    ) -> None:
        """`scales` are pixel multipliers, each > 0. Raises `InputError`."""
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise InputError(f"scales must be numbers greater than 0, not {list(scales)}")
        self.classifier = classifier
        self.scales = tuple(float(scale) for scale in scales)
        self.normalised = normalised
        self.name = "nspc" if normalised else "spc"

    def settings(self) -> dict[str, Any]:
        return {"scales": list(self.scales)}

    def measure(self, images: Tensor) -> Tensor:
        """Evidence (B, 2|S|): 1 where the prediction survived the scale, else 0; then the labels under it."""
        base = BasePass.of(images, self.classifier.logits(images))
        logits = self._answers(base.images, range(len(self.scales)))
        return torch.cat([agrees(logits, base.labels), logits.argmax(2).T.float()], dim=1)

    def agreement(self, base: BasePass, which: Sequence[int], rows: Tensor | None) -> Tensor:
        """(R, len(which)): 1 where the image keeps its label under the scale. One batch for all."""
        images = base.images if rows is None else base.images[rows]
        labels = base.labels if rows is None else base.labels[rows]
        return agrees(self._answers(images, which), labels)

    def _answers(self, images: Tensor, which: Sequence[int]) -> Tensor:
        """Logits (len(which), R, K) of `images` (R, C, H, W) under the scales numbered `which`."""
        logits = self.classifier.logits(scaled_copies(images, [self.scales[number] for number in which]))
        return logits.view(len(which), len(images), -1)

    def _mean(self, evidence: Floats) -> Floats:
        """SPC (m,) from evidence whose first |S| columns are agreements."""
        spc: Floats = mean_of(torch.from_numpy(evidence[:, : len(self.scales)])).numpy()
        return spc

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """The per-class statistics of benign SPC, which NSPC uses; SPC itself learns nothing."""
        if not self.normalised:
            return {}
        if len(evidence) == 0:
            raise CalibrationError("NSPC needs benign images")
        means, deviations = shrunken_statistics(self._mean(evidence), predicted, self.classifier.num_classes)
        return {"mean": means.tolist(), "std": deviations.tolist()}

    def statistics(self, fit: Fit) -> tuple[Floats, Floats]:
        """μ and σ per predicted class, each (K,); 0 and 1 for SPC, which is not normalised."""
        if not self.normalised:
            return np.zeros(self.classifier.num_classes), np.ones(self.classifier.num_classes)
        return np.array(fit["mean"], dtype=np.float64), np.array(fit["std"], dtype=np.float64)

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        means, deviations = self.statistics(fit)
        return (self._mean(evidence) - means[predicted]) / deviations[predicted]

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        agreements, normalise = evidence[:, : len(self.scales)], self._normalise(predicted, fit)
        return cheapest_stages(agreements, thresholds, np.ones(len(self.scales)), normalise)

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        agreements, costs = evidence[:, : len(self.scales)], np.ones(len(self.scales))
        normalise = self._normalise(predicted, fit)
        expected = expected_cost(stages, agreements, thresholds, costs, normalise, per_stage=0)
        return Cost(float(len(self.scales)), expected)

    def describe(self, evidence: Floats, predicted: Integers, fit: Fit) -> dict[str, Any]:
        """Collapse of benign predictions under each scale."""
        answers = evidence[:, len(self.scales) :]
        order = np.argsort(self.scales, kind="stable")
        return {
            "collapse": [
                collapse("scaling", self.scales[n], answers[:, n], predicted) for n in order.tolist()
            ]
        }

    def _normalise(self, predicted: Integers, fit: Fit) -> Callable[[Floats], Floats]:
        means, deviations = self.statistics(fit)

        def normalise(spc: Floats) -> Floats:
            return (spc - means[predicted]) / deviations[predicted]

        return normalise

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "ScaleUpScorer":
        return ScaleUpScorer(self, *self.statistics(fit), stages or [range(len(self.scales))])

    def maxima(self, fit: Fit) -> Floats:
        means, deviations = self.statistics(fit)
        return (1 - means) / deviations

    def data_free_fit(self) -> Fit | None:
        return None if self.normalised else {}

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """T for SPC (the paper's 0.5). NSPC is in units of σ, where the paper's T has no meaning: the
        same SPC is compared, moved into each class's units."""
        means, deviations = self.statistics(fit)
        return (PAPER_THRESHOLD - means) / deviations


class ScaleUpScorer:
    """A fitted `ScaleUp`: all scales of a stage go through the classifier as one batch."""

    def __init__(self, detector: ScaleUp, means: Floats, deviations: Floats, stages: Stages) -> None:
        self.detector, self.stages = detector, stages
        self.engine = "one batch of scaled copies"
        self.means, self.deviations = torch.from_numpy(means), torch.from_numpy(deviations)

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        device = base.labels.device
        if self.means.device != device:  # once: a scorer serves one device
            self.means, self.deviations = self.means.to(device), self.deviations.to(device)
        means, deviations = self.means[base.labels], self.deviations[base.labels]
        terms = base.terms(("spc", self.detector.scales), len(self.detector.scales))

        def evaluate(which: Sequence[int], rows: Tensor | None) -> Tensor:
            return self.detector.agreement(base, which, rows)

        def normalise(spc: Tensor) -> Tensor:
            return (spc - means) / deviations

        return bounded_mean(terms, self.stages, evaluate, thresholds, normalise)
