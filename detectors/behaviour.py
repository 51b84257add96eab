"""What a detector can say beside its scores: what it costs, and how the model behaves under its question.

Both are optional. A detector that has them satisfies `Costed` or `Describing`; the calibration report asks
those that do. The behaviour is evidence about the *model*. Benign models collapse too, so that a share means
little without the shares of benign models beside it.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from detectors.base import Fit, Floats, Integers, Stages

__all__ = ["Cost", "Costed", "Describing", "Perturbation", "collapse", "sink_class"]

Perturbation = Literal["amplification", "scaling"]


@dataclass(frozen=True)
class Cost:
    """Forward passes per image beyond the plain prediction: `full` for an exact score, `expected` on benign
    images where evaluation stops once the verdict is certain."""

    full: float
    expected: float


@runtime_checkable
class Costed(Protocol):
    """A detector that knows what its scores cost."""

    def cost(
        self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats, stages: Stages
    ) -> Cost:
        """On benign evidence (m, F) with the thresholds (m,) that are in force."""
        ...


@runtime_checkable
class Describing(Protocol):
    """A detector whose measurements show how the model behaves."""

    def describe(self, evidence: Floats, predicted: Integers, fit: Fit) -> dict[str, Any]:
        """JSON. `collapse` lists what `collapse` below returns, weakest perturbation first."""
        ...


def sink_class(answers: Floats) -> tuple[int, float]:
    """The label that most of `answers` (m,) name, and their share: what benign predictions collapse into."""
    labels, counts = np.unique(answers, return_counts=True)
    most = int(counts.argmax())
    return int(labels[most]), float(counts[most] / len(answers))


def collapse(by: Perturbation, strength: float, answers: Floats, predicted: Integers) -> dict[str, Any]:
    """The sink of `answers` (m,), the labels of benign images under one perturbation of `strength` (amplified
    BatchNorm layers, or pixel multiplier); `plain_share` of `predicted` (m,) had that label anyway."""
    label, share = sink_class(answers)
    plain = float((predicted == label).mean())
    return {"by": by, "strength": strength, "label": label, "share": share, "plain_share": plain}
