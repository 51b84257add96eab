"""TeCo: is the prediction equally robust to every corruption? (Liu et al., CVPR 2023, arXiv:2303.18191)

r_k(x) = the least severity at which corruption k changes the label of x; 6 where none of the five does
score(x) = the standard deviation of r_k(x) over the fifteen corruptions             (section 4)

Benign images lose their label to all corruptions at about the same severity; a triggered one keeps it
under those that leave the trigger alone and loses it at once under those that destroy the trigger.
Every severity is applied to the clean image. Needs labels only.

Costs 15 to 75 forward passes: a corruption's higher severities are not tried once the label has changed.
A deviation is no bounded sum, so there is no early exit besides that. Fixed T: the paper names none.
"""

from collections.abc import Iterator
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
)
from detectors.copies import rows_at_once
from detectors.corruptions import CORRUPTIONS, SEVERITIES, corruption
from detectors.normal import normal_fit, normal_thresholds

__all__ = ["TeCo", "TeCoScorer"]

NEVER = SEVERITIES + 1.0


def deviation(severities: Floats) -> Floats:
    """(m, n) → (m,): the population standard deviation of each row."""
    values: Floats = severities.std(axis=1)
    return values


class TeCo:
    """Satisfies `detectors.base.Detector`. Evidence is (m, 15): r_k of each corruption."""

    name = "teco"
    needs = Access.LABELS

    def __init__(self, classifier: Classifier) -> None:
        self.classifier, self.corruptions = classifier, tuple(CORRUPTIONS)

    def settings(self) -> dict[str, Any]:
        return {"corruptions": list(self.corruptions), "severities": SEVERITIES}

    def measure(self, images: Tensor) -> Tensor:
        return self.severities(BasePass.of(images, self.classifier.logits(images)))

    def severities(self, base: BasePass) -> Tensor:
        """(B, 15) float32 in 1..6: the least severity that changes the label; NaN where the classifier
        answered something that is not a number, which no score may hide."""
        first = torch.full((len(base.images), len(self.corruptions)), NEVER, device=base.images.device)
        for severity in range(1, SEVERITIES + 1):
            waiting = first == NEVER
            for rows, columns, copies in self._copies(base.images, waiting, severity):
                logits = self.classifier.logits(copies)
                changed = logits.argmax(1) != base.labels[rows]
                found = torch.where(changed, float(severity), NEVER)
                first[rows, columns] = found.masked_fill(logits.isnan().any(1), torch.nan)
        return first

    def _copies(
        self, images: Tensor, waiting: Tensor, severity: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Corrupted copies for every True of `waiting` (B, 15), in bounded batches: their rows, columns,
        and the copies themselves."""
        at_once = rows_at_once(images)
        gathered: list[tuple[Tensor, Tensor, Tensor]] = []
        for column, name in enumerate(self.corruptions):
            change = corruption(name, severity)
            for rows in torch.split(waiting[:, column].nonzero().squeeze(1), at_once):
                if sum(len(part[0]) for part in gathered) + len(rows) > at_once:
                    yield _joined(gathered)
                    gathered = []
                if len(rows):
                    gathered.append((rows, torch.full_like(rows, column), change(images[rows])))
        if gathered:
            yield _joined(gathered)

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """Mean and deviation of benign scores, for running without a budget."""
        if len(evidence) == 0:
            raise CalibrationError("TeCo needs benign images")
        return normal_fit(deviation(evidence))

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        return deviation(evidence)

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        return [list(range(len(self.corruptions)))]

    def scorer(self, fit: Fit, stages: Stages | None = None) -> "TeCoScorer":
        return TeCoScorer(self)

    def maxima(self, fit: Fit) -> Floats:
        """Half of the corruptions change the label at once, the others never."""
        extremes = np.where(np.arange(len(self.corruptions)) % 2 == 0, 1.0, NEVER)
        return np.full(self.classifier.num_classes, extremes.std())

    def data_free_fit(self) -> Fit | None:
        return None  # without a T of the paper's, it is learnt from benign images

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """What 1 % of benign images would exceed, were their scores normal; the paper names no T."""
        return normal_thresholds(fit, self.classifier.num_classes)


class TeCoScorer:
    """A fitted `TeCo`; every score is exact."""

    engine = "batches of corrupted copies, severity by severity"

    def __init__(self, detector: TeCo) -> None:
        self.detector = detector
        self.stages: Stages = [list(range(len(detector.corruptions)))]

    def base(self, images: Tensor) -> BasePass | None:
        return None

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        severities = self.detector.severities(base).double()
        exact = torch.ones_like(base.labels, dtype=torch.bool)
        return Scores(severities.std(1, correction=0), exact)


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, copies = zip(*parts, strict=True)
    return torch.cat(rows), torch.cat(columns), torch.cat(copies)
