"""Does the prediction die under changes that what is shown survives? What ShrinkPad and DeepSweep share.

score(x) = (1/n) Σ_t (1 − p_t),  p_t = softmax F(t(x)) at the label of x, over n changes t

Both papers change the input to disarm its trigger and answer with the new label. As detectors, the way
the SCALE-UP paper compares them, the change of the answer is the evidence. A trigger that survives the
changes scores lower than a benign image: the direction is the papers', and so is what it misses.

Needs probabilities. Costs n forward passes; as a mean of terms in [0, 1] it stops once it is certain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detectors.base import (
    Access,
    BasePass,
    Classifier,
    Fit,
    Floats,
    InputError,
    Integers,
    Scores,
    Stages,
)
from detectors.copies import Change, logits_of_copies
from detectors.early_exit import bounded_mean, mean_of
from detectors.stages import cheapest_stages

__all__ = ["HALF", "Inconsistency", "InconsistencyScorer", "lost_confidence"]

HALF = 0.5


def lost_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """1 − p of `labels` (B,) under `logits` (n, B, K): (n, B) in [0, 1]. An answer that is not a number
    counts as 1, the suspicious side: it must clear nobody."""
    chosen = labels.expand(len(logits), -1)[..., None]
    kept = logits.softmax(-1).gather(-1, chosen).squeeze(-1)
    return torch.where(logits.isnan().any(-1), 1.0, (1 - kept).nan_to_num(nan=1.0).clamp(0, 1))


class Inconsistency:
    """The mean loss of confidence under `changes`, by name; satisfies `detectors.base.Detector`."""

    needs = Access.PROBABILITIES

    def __init__(self, name: str, classifier: Classifier, changes: Mapping[str, Change]) -> None:
        """Raises `InputError` without changes."""
        if not changes:
            raise InputError(f"{name} needs at least one change")
        self.name, self.classifier, self.changes = name, classifier, dict(changes)

    def settings(self) -> dict[str, Any]:
        return {"changes": list(self.changes)}

    def measure(self, images: Tensor) -> Tensor:
        """Evidence (B, n): how much confidence each change took."""
        base = BasePass.of(images, self.classifier.logits(images))
        return self.losses(base, range(len(self.changes)), None)

    def losses(self, base: BasePass, which: Sequence[int], rows: Tensor | None) -> Tensor:
        """(R, len(which)): the confidence lost under each change, in large batches."""
        images = base.images if rows is None else base.images[rows]
        labels = base.labels if rows is None else base.labels[rows]
        changes = list(self.changes.values())
        logits = logits_of_copies(self.classifier, images, [changes[number] for number in which])
        return lost_confidence(logits, labels).T

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        return {}  # nothing is learnt

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        scores: Floats = mean_of(torch.from_numpy(evidence)).numpy()
        return scores

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return cheapest_stages(evidence, thresholds, np.ones(len(self.changes)))

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "InconsistencyScorer":
        return InconsistencyScorer(self, stages or [range(len(self.changes))])

    def maxima(self, fit: Fit) -> Floats:
        return np.ones(self.classifier.num_classes)

    def data_free_fit(self) -> Fit | None:
        return {}

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """One half: the changes took more confidence than they left. The papers, which correct labels
        rather than detect, name no T."""
        return np.full(self.classifier.num_classes, HALF)


class InconsistencyScorer:
    """A fitted `Inconsistency`: all copies of a stage go through the classifier together."""

    engine = "large batches of changed copies"

    def __init__(self, detector: Inconsistency, stages: Stages) -> None:
        self.detector, self.stages = detector, stages

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        terms = base.terms(self.detector.name, len(self.detector.changes))

        def evaluate(which: Sequence[int], rows: Tensor | None) -> Tensor:
            return self.detector.losses(base, which, rows)

        return bounded_mean(terms, self.stages, evaluate, thresholds)
