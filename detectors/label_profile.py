"""The consistency profile of a classifier that gives labels only: which probes change the label?

What is usual is learnt per predicted class: θ_cj, the share of benign images predicted as c that keep their
label under probe j. The answers count as independent given the class (naive Bayes), and the score is how
surprising they are together, in either direction:

score(x) = − Σ_j log P(a_j | ŷ),  P(1 | c) = θ_cj,  a_j = 1 where probe j leaves the label alone

Needs labels. There is no paper to be exact to: it is this project's own. As a sum of terms with a least and
a largest value each, it stops once the verdict is certain.
"""

from collections.abc import Sequence
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
    Integers,
    Scores,
    Stages,
    Terms,
)
from detectors.behaviour import Cost
from detectors.copies import logits_of_copies
from detectors.early_exit import evaluate_until_certain, sum_of
from detectors.probes import PRESETS, Probe

__all__ = ["LabelProfile", "LabelProfileScorer"]

PRIOR_WEIGHT = 5.0  # what is known of all classes counts as this many images of every class
PER_STAGE = 4  # probes that are asked together; a stage costs a synchronisation


class LabelProfile:
    """The profile by agreement under `probes`; satisfies `detectors.base.Detector`.

    Evidence is (m, probes): 1 where the label stays, 0 where it changes.
    """

    name = "label_profile"
    needs = Access.LABELS

    def __init__(self, classifier: Classifier, probes: Sequence[Probe] = PRESETS["thorough"].probes) -> None:
        self.classifier, self.probes = classifier, tuple(probes)

    def settings(self) -> dict[str, Any]:
        return {"probes": {probe.name: probe.strength for probe in self.probes}}

    def measure(self, images: Tensor) -> Tensor:
        base = BasePass.of(images, self.classifier.logits(images))
        return self.agreement(base, range(len(self.probes)), None)

    def agreement(self, base: BasePass, which: Sequence[int], rows: Tensor | None) -> Tensor:
        """(R, len(which)) in {0, 1}; NaN where an answer is not a number."""
        images = base.images if rows is None else base.images[rows]
        labels = base.labels if rows is None else base.labels[rows]
        logits = logits_of_copies(self.classifier, images, [self.probes[number].apply for number in which])
        kept = (logits.argmax(2) == labels).float()
        return kept.masked_fill(logits.isnan().any(2), torch.nan).T

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """θ of every class, shrunk towards that of all, which is kept off 0 and 1 by one image of either."""
        if len(evidence) == 0:
            raise CalibrationError("the label profile needs benign images")
        classes = self.classifier.num_classes
        counts = np.bincount(predicted, minlength=classes)[:, None]
        kept = np.zeros((classes, evidence.shape[1]))
        np.add.at(kept, predicted, evidence)
        pooled = (kept.sum(0) + 1) / (len(evidence) + 2)
        return {"kept": ((kept + PRIOR_WEIGHT * pooled) / (counts + PRIOR_WEIGHT)).tolist()}

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        answers, kept = torch.from_numpy(evidence), torch.tensor(fit["kept"], dtype=torch.float64)
        scores: Floats = sum_of(_surprise(answers, kept[torch.from_numpy(predicted)])).numpy()
        return scores

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        """What tells most comes first: the probes whose surprise varies most over benign images."""
        kept = np.array(fit["kept"])[predicted]
        spread = (kept * (1 - kept) * np.log(kept / (1 - kept)) ** 2).mean(0)
        order = np.argsort(-spread, kind="stable").tolist()
        return [order[start : start + PER_STAGE] for start in range(0, len(order), PER_STAGE)]

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        """On benign images, with early exit."""
        answers, limits = torch.from_numpy(evidence), torch.from_numpy(thresholds)
        kept = torch.tensor(fit["kept"], dtype=torch.float64)[torch.from_numpy(predicted)]
        known = torch.zeros_like(answers, dtype=torch.bool)
        costs = torch.tensor([probe.cost for probe in self.probes], dtype=torch.float64)
        expected = 0.0
        for stage in stages:
            least, most = _bounds(answers, known, kept)
            waiting = ~((least > limits) | (most <= limits))
            expected += float(waiting.double().mean() * costs[list(stage)].sum())
            known[:, list(stage)] = True
        return Cost(float(costs.sum()), expected)

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "LabelProfileScorer":
        return LabelProfileScorer(self, fit, stages or [range(len(self.probes))])

    def maxima(self, fit: Fit) -> Floats:
        """(K,): every answer the less usual one."""
        kept = np.array(fit["kept"])
        most: Floats = -np.log(np.minimum(kept, 1 - kept)).sum(1)
        return most

    def data_free_fit(self) -> Fit | None:
        return None  # what is usual is learnt from benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """Mean and three standard deviations of the score if the answers were independent: there is no
        paper's T to take."""
        kept = np.array(fit["kept"])
        mean = -(kept * np.log(kept) + (1 - kept) * np.log(1 - kept)).sum(1)
        variance = (kept * (1 - kept) * np.log(kept / (1 - kept)) ** 2).sum(1)
        limits: Floats = mean + 3 * np.sqrt(variance)
        return limits


def _surprise(answers: Tensor, kept: Tensor) -> Tensor:
    """− log P(answer) (B, n) float64 of `answers` (B, n) in {0, 1} with shares `kept` (B, n) in (0, 1). An
    answer that is not a number counts as the rarer one: it must clear nobody, and bounds have to hold."""
    chance = torch.where(answers > 0.5, kept, 1 - kept)
    return -torch.where(answers.isnan(), torch.minimum(kept, 1 - kept), chance).log()


def _bounds(answers: Tensor, known: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest score (B,) that the `known` (B, n) of the answers allow."""
    found = _surprise(answers, kept)
    rarer, commoner = torch.minimum(kept, 1 - kept), torch.maximum(kept, 1 - kept)
    return sum_of(torch.where(known, found, -commoner.log())), sum_of(torch.where(known, found, -rarer.log()))


class LabelProfileScorer:
    """A fitted `LabelProfile`."""

    engine = "large batches of changed copies"

    def __init__(self, detector: LabelProfile, fit: Fit, stages: Stages) -> None:
        self.detector, self.stages = detector, stages
        self.kept = torch.tensor(fit["kept"], dtype=torch.float64)

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        if self.kept.device != base.logits.device:  # once: a scorer serves one device
            self.kept = self.kept.to(base.logits.device)
        kept = self.kept[base.labels]
        terms = base.terms(self.detector.name, len(self.detector.probes))

        def bounds(terms: Terms) -> tuple[Tensor, Tensor]:
            return _bounds(terms.values, terms.known, kept)

        return evaluate_until_certain(
            terms,
            self.stages,
            lambda which, rows: self.detector.agreement(base, which, rows),
            thresholds,
            bounds,
        )
