"""What every detector is, what it may ask of a classifier, and what can go wrong.

DetectorError
 ├─ AccessError          the detector needs more of the classifier than it gives      (start-up)
 ├─ UnsupportedNetwork   the network cannot be guarded by this detector               (start-up)
 ├─ CalibrationError     the benign images cannot support what was asked of them      (calibration)
 └─ InputError           a tensor or a setting that makes no sense                    (anywhere)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = [
    "Access",
    "AccessError",
    "BasePass",
    "CalibrationError",
    "Classifier",
    "Detector",
    "DetectorError",
    "Fit",
    "Floats",
    "InputError",
    "Integers",
    "Scorer",
    "Scores",
    "Stages",
    "Terms",
    "UnsupportedNetwork",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Fit = Mapping[str, Any]
Stages = Sequence[Sequence[int]]


class DetectorError(Exception):
    """Base of every error of `detectors`; its text says what the caller can do."""


class AccessError(DetectorError):
    """Raised at start-up where a detector needs more of the classifier than it gives."""


class UnsupportedNetwork(DetectorError):  # noqa: N818  (it names what is unsupported)
    """Raised at start-up where a network lacks what a detector works on, such as BatchNorm layers."""


class CalibrationError(DetectorError):
    """Raised while calibrating: too few images for the budget, or scores that are not numbers."""


class InputError(DetectorError):
    """Raised for a tensor or a setting outside its stated range."""


class Access(StrEnum):
    """How much of the classifier a detector can see, from least to most."""

    LABELS = "labels"
    PROBABILITIES = "probabilities"
    WEIGHTS = "weights"

    def grants(self, need: "Access") -> bool:
        """True where a classifier that gives `self` satisfies a detector that needs `need`."""
        order = list(Access)
        return order.index(self) >= order.index(need)


class Classifier(Protocol):
    """What a detector asks of the wrapped model."""

    @property
    def network(self) -> nn.Module | None:
        """Pixels in [0, 1] (B, C, H, W) → logits (B, K), in eval mode; None without access."""
        ...

    @property
    def num_classes(self) -> int:
        """K."""
        ...

    def logits(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] → (B, K) float32, up to a constant per row."""
        ...


@dataclass
class Terms:
    """What a score is made of, filled in as it is evaluated: the terms of a mean, or answers to probes.

    `values` (B, n) float32, 0 until known; `known` (B, n) bool. Two scores over the same terms (SPC and
    NSPC) share one `Terms`, so that nothing is computed twice for one image. `begun`: some are known.
    """

    values: Tensor
    known: Tensor
    begun: bool = False

    @classmethod
    def unknown(cls, rows: int, count: int, device: torch.device) -> "Terms":
        return cls(
            torch.zeros(rows, count, device=device), torch.zeros(rows, count, dtype=torch.bool, device=device)
        )


@dataclass
class BasePass:
    """One batch of images after the plain network has seen it; every detector starts from here.

    `images` (B, C, H, W) in [0, 1]; `logits` (B, K) float32; `labels` (B,) int64, the predictions;
    `forks`: what an amplification engine saved on the way, opaque to everybody else.
    """

    images: Tensor
    logits: Tensor
    labels: Tensor
    forks: Any = None
    _terms: dict[Any, Terms] = field(default_factory=dict)

    @classmethod
    def of(cls, images: Tensor, logits: Tensor, forks: Any = None) -> "BasePass":
        return cls(images, logits, logits.argmax(1), forks)

    def terms(self, key: Any, count: int) -> Terms:
        """The shared terms under `key`, all unknown when first asked for."""
        if key not in self._terms:
            self._terms[key] = Terms.unknown(len(self.images), count, self.images.device)
        return self._terms[key]

    def evaluated(self) -> Tensor:
        """(B,) int64: how many terms were evaluated for each image so far."""
        counts = [terms.known.sum(1) for terms in self._terms.values()]
        return torch.stack(counts).sum(0) if counts else torch.zeros_like(self.labels)


@dataclass(frozen=True)
class Scores:
    """`values` (B,) float64, higher = more suspicious. Where `exact` (B,) bool is false, the value is a
    bound on the side that decided: suspicious by a lower bound, or cleared by an upper bound."""

    values: Tensor
    exact: Tensor


class Scorer(Protocol):
    """A fitted detector in its resident form: everything that can be computed ahead is on the device."""

    @property
    def engine(self) -> str:
        """What computes the scores, for people; where it is a fallback, with the reason."""
        ...

    @property
    def stages(self) -> Stages:
        """The order of evaluation: term numbers that are evaluated together, stage by stage."""
        ...

    def base(self, images: Tensor) -> BasePass | None:
        """The base pass with what this scorer can save on the way; None where any base pass will do."""
        ...

    def score(self, base: BasePass, thresholds: Tensor | None = None) -> Scores:
        """Score every image of the batch.

        With `thresholds` (B,) float64 it may stop as soon as `score > threshold` is certain; the
        verdict is then the full one on every image. Without, every score is exact.
        """
        ...


class Detector(Protocol):
    """One way to tell triggered images from benign ones, around one classifier."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Access: ...

    def settings(self) -> dict[str, Any]:
        """What decides the scores besides the fit; JSON. Part of the calibration's identity."""
        ...

    def measure(self, images: Tensor) -> Tensor:
        """Everything that `fit` and `score` need of benign images, before any fit.

        (B, C, H, W) → evidence (B, F), float32.
        """
        ...

    def fit(self, evidence: Floats, predicted: Integers, labels: Integers | None) -> Fit:
        """Learn from benign evidence (m, F), predictions (m,) and, where given, true labels (m,).

        Returns JSON. Raises `CalibrationError`.
        """
        ...

    def score(self, evidence: Floats, predicted: Integers, fit: Fit) -> Floats:
        """Evidence (m, F) → scores (m,): the same numbers the scorer gives, from what was measured."""
        ...

    def plan(self, evidence: Floats, predicted: Integers, fit: Fit, thresholds: Floats) -> Stages:
        """The cheapest order of evaluation on benign images with `thresholds` (m,): term numbers that
        are evaluated together, stage by stage."""
        ...

    def scorer(self, fit: Fit, stages: Stages | None = None) -> Scorer:
        """Build the resident form for serving, with `stages` as `plan` gave them."""
        ...

    def maxima(self, fit: Fit) -> Floats:
        """(K,) the largest score possible per predicted class; benign scores there are saturated."""
        ...

    def data_free_fit(self) -> Fit | None:
        """The fit for running before any benign image was seen; None where there is no such thing."""
        ...

    def fixed_thresholds(self, fit: Fit) -> Floats:
        """(K,) the paper's own threshold per predicted class, for running without a budget."""
        ...
